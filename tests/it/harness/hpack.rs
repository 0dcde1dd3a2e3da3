//! Header compression (RFC 7541), as much as a hostile client needs.
//!
//! Encodes byte by byte what it is told, legal or not. Decodes what a peer sends that was told to
//! keep no dynamic table.

/// The static table (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Length of a code, and the symbols that have it, in order: the code is canonical, and what a
/// header field may hold needs no more than 15 bits.
const HUFFMAN: [(u32, &str); 10] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
    (14, "^}"),
    (15, "<`{"),
];

/// A number with a prefix of `bits` bits; `first` holds what stands before them.
pub fn number(out: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | u8::try_from(value).expect("it fits the prefix"));
        return;
    }
    out.push(first | u8::try_from(most).expect("at most 8 bits"));
    value -= most;
    while value >= 128 {
        out.push(u8::try_from(value % 128).expect("7 bits") | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).expect("7 bits"));
}

/// A field that is not added to the table.
pub fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    strings(out, name, value);
}

/// A field that is added to the table: index 62 from then on.
pub fn indexed_literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x40);
    strings(out, name, value);
}

fn strings(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for text in [name, value] {
        number(out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
}

/// A block of fields, none of them added to the table.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(&mut out, name, value);
    }
    out
}

/// The fields of a block; panics where it is not one, or needs a dynamic table.
pub fn decode(bytes: &[u8]) -> Vec<(String, String)> {
    let mut input = Input(bytes);
    let mut fields = Vec::new();
    while let Some(first) = input.0.first().copied() {
        match first {
            0x80.. => {
                let (name, value) = STATIC[input.number(7) - 1];
                fields.push((name.to_owned(), value.to_owned()));
            }
            0x20..=0x3f => assert_eq!(input.number(5), 0, "a table it was told not to keep"),
            _ => {
                let name = match input.number(if first >= 0x40 { 6 } else { 4 }) {
                    0 => input.string(),
                    index => STATIC[index - 1].0.to_owned(),
                };
                let value = input.string();
                fields.push((name, value));
            }
        }
    }
    fields
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let (first, rest) = self.0.split_first().expect("a whole block");
        self.0 = rest;
        usize::from(*first)
    }

    fn number(&mut self, bits: u32) -> usize {
        let most = (1 << bits) - 1;
        let mut value = self.byte() & most;
        if value < most {
            return value;
        }
        let mut shift = 0;
        loop {
            let byte = self.byte();
            value += (byte & 127) << shift;
            if byte < 128 {
                return value;
            }
            shift += 7;
        }
    }

    fn string(&mut self) -> String {
        let coded = self.0.first().is_some_and(|byte| *byte >= 0x80);
        let length = self.number(7);
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        if coded {
            plain(text)
        } else {
            String::from_utf8_lossy(text).into_owned()
        }
    }
}

/// Takes the Huffman code off a string.
fn plain(coded: &[u8]) -> String {
    let (mut text, mut code, mut length) = (String::new(), 0u32, 0u32);
    for bit in coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some(symbol) = symbol(code, length) {
            text.push(symbol);
            (code, length) = (0, 0);
        }
    }
    text
}

fn symbol(code: u32, length: u32) -> Option<char> {
    let (mut first, mut before) = (0, 0);
    for (bits, symbols) in HUFFMAN {
        first <<= bits - before;
        before = bits;
        let count = u32::try_from(symbols.len()).expect("few");
        if bits == length && (first..first + count).contains(&code) {
            return symbols.chars().nth((code - first) as usize);
        }
        first += count;
    }
    None
}
