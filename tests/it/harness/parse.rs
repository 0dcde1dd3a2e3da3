//! A strict HTTP/1.1 parser, independent of the gateway's: the referee of every test.
//!
//! Takes nothing that RFC 9112 does not oblige it to: CRLF only, one framing, decimal lengths
//! without leading zeros, chunks without extensions.

use std::io::Read;

/// A message: start line, fields in order, body, trailers.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body was chunked.
    pub chunked: bool,
}

impl Message {
    /// The values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |f: &&(String, String)| f.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|f| f.1.as_str())
            .collect()
    }

    /// The one value of a field; panics where there are two.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands there twice: {all:?}");
        all.first().copied()
    }

    /// Second word of the start line: a request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// First word of the start line: a request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    /// A response's status.
    pub fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads bytes one buffer at a time and keeps what it has read ahead.
pub struct Reader<R> {
    inner: R,
    pub buffer: Vec<u8>,
    /// Everything ever read.
    pub seen: Vec<u8>,
}

/// Why no message could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Nothing more came, at a message's boundary.
    End,
    /// The other side ended, or was silent too long, within a message.
    Cut(String),
    /// The bytes are no message.
    Bad(String),
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Reader {
            inner,
            buffer: Vec::new(),
            seen: Vec::new(),
        }
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    fn fill(&mut self) -> Result<usize, Stop> {
        let mut piece = [0; 64 * 1024];
        match self.inner.read(&mut piece) {
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                if self.seen.len() < 1 << 20 {
                    self.seen.extend_from_slice(&piece[..n]);
                }
                Ok(n)
            }
            Err(error) => Err(Stop::Cut(error.to_string())),
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Stop> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(Stop::Cut("the end".into()));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn line(&mut self) -> Result<String, Stop> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                let Some(line) = line.strip_suffix(b"\r\n") else {
                    return Err(Stop::Bad("a bare LF".into()));
                };
                if line.iter().any(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f) {
                    return Err(Stop::Bad(format!("a control character in {line:?}")));
                }
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            if self.buffer.len() > 1 << 20 {
                return Err(Stop::Bad("an endless line".into()));
            }
            if self.fill()? == 0 {
                return Err(Stop::Cut("the end within a line".into()));
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<(String, String)>, Stop> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let bad = || Stop::Bad(format!("no field: {line:?}"));
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(bad());
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// The next request.
    pub fn request(&mut self) -> Result<Message, Stop> {
        if self.buffer.is_empty() && self.fill().map_err(|_| Stop::End)? == 0 {
            return Err(Stop::End);
        }
        let start = self.line()?;
        let words: Vec<&str> = start.split(' ').collect();
        if words.len() != 3
            || words.iter().any(|w| w.is_empty())
            || !words[2].starts_with("HTTP/1.")
        {
            return Err(Stop::Bad(format!("no request line: {start:?}")));
        }
        let mut message = Message {
            start,
            fields: self.fields()?,
            ..Message::default()
        };
        let length = length(&message)?;
        if chunked(&message)? {
            if length.is_some() {
                return Err(Stop::Bad("two framings".into()));
            }
            self.chunks(&mut message)?;
        } else {
            message.body = self.take(length.unwrap_or(0))?;
        }
        Ok(message)
    }

    /// The next response; `bodiless` for an answer to HEAD. Interim answers are passed over.
    pub fn response(&mut self, bodiless: bool) -> Result<Message, Stop> {
        loop {
            let head = self.response_head()?;
            if (100..200).contains(&head.status()) && head.status() != 101 {
                continue;
            }
            return self.response_body(head, bodiless);
        }
    }

    /// The next response head, interim ones too.
    pub fn response_head(&mut self) -> Result<Message, Stop> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Err(Stop::End);
        }
        let start = self.line()?;
        if !start.starts_with("HTTP/1.1 ") && !start.starts_with("HTTP/1.0 ") {
            return Err(Stop::Bad(format!("no status line: {start:?}")));
        }
        Ok(Message {
            start,
            fields: self.fields()?,
            ..Message::default()
        })
    }

    /// The body that belongs to a head.
    pub fn response_body(&mut self, mut message: Message, bodiless: bool) -> Result<Message, Stop> {
        let length = length(&message)?;
        if bodiless || matches!(message.status(), 101 | 204 | 304) {
            return Ok(message);
        }
        if chunked(&message)? {
            if length.is_some() {
                return Err(Stop::Bad("two framings".into()));
            }
            self.chunks(&mut message)?;
        } else if let Some(length) = length {
            message.body = self.take(length)?;
        } else {
            while self.fill()? > 0 {}
            message.body = std::mem::take(&mut self.buffer);
        }
        Ok(message)
    }

    fn chunks(&mut self, message: &mut Message) -> Result<(), Stop> {
        message.chunked = true;
        loop {
            let line = self.line()?;
            let digits = !line.is_empty() && line.len() < 9;
            if !digits || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Stop::Bad(format!("no chunk size: {line:?}")));
            }
            let size = usize::from_str_radix(&line, 16).expect("hex digits");
            if size == 0 {
                message.trailers = self.fields()?;
                return Ok(());
            }
            let data = self.take(size)?;
            message.body.extend_from_slice(&data);
            if self.take(2)? != b"\r\n" {
                return Err(Stop::Bad("a chunk that does not end".into()));
            }
        }
    }
}

fn length(message: &Message) -> Result<Option<usize>, Stop> {
    let all = message.all("content-length");
    match all.as_slice() {
        [] => Ok(None),
        [one] => {
            let plain = !one.is_empty() && one.bytes().all(|b| b.is_ascii_digit());
            let zeros = one.len() > 1 && one.starts_with('0');
            match one.parse() {
                Ok(length) if plain && !zeros => Ok(Some(length)),
                _ => Err(Stop::Bad(format!("no length: {one:?}"))),
            }
        }
        many => Err(Stop::Bad(format!("several lengths: {many:?}"))),
    }
}

fn chunked(message: &Message) -> Result<bool, Stop> {
    match message.all("transfer-encoding").as_slice() {
        [] => Ok(false),
        ["chunked"] => Ok(true),
        other => Err(Stop::Bad(format!("transfer codings: {other:?}"))),
    }
}
