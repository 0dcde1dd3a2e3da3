//! Files to text: the config files, what they include, and the files that sections name.
//!
//! Every read is capped, so that a wrong path (a log, a disk image) costs a message and not the
//! memory. What is not UTF-8 text is refused with the place of the first fault, not guessed at.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::Config;
use crate::files::Files;
use crate::problem::Problem;

/// The largest config file.
const CONFIG_CAP: u64 = 8 << 20;
/// The largest certificate, key or body.
const FILE_CAP: u64 = 16 << 20;

/// A name that begins with a dot is meant only by a pattern that says so: such files are the locks
/// and swap files of editors.
const AS_A_SHELL: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: true,
};

/// A config file as it is shown in problems, and what makes it unreadable.
pub(super) struct Text {
    /// The text; where it is not UTF-8, as near as it can be shown.
    pub(super) shown: String,
    /// Why it is not parsed.
    pub(super) fault: Option<Fault>,
}

/// Why a file is no config.
pub(super) struct Fault {
    at: usize,
    message: String,
    help: Option<&'static str>,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>, help: Option<&'static str>) -> Self {
        let message = message.into();
        Fault { at, message, help }
    }

    /// At its place in a file whose first byte is at `base`.
    pub(super) fn problem(&self, base: usize) -> Problem {
        let at = base + self.at;
        let problem = Problem::at(&(at..at + 1), self.message.clone());
        self.help.iter().fold(problem, |p, help| p.help(*help))
    }
}

impl Text {
    /// Takes the bytes of a file as text.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(shown) => Text {
                fault: text_fault(&shown),
                shown,
            },
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                Text {
                    shown: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    fault: Some(Fault::new(at, "not UTF-8 text", None)),
                }
            }
        }
    }

    fn too_large() -> Self {
        let message = format!("larger than {} MiB: this is no config", CONFIG_CAP >> 20);
        Text {
            shown: String::new(),
            fault: Some(Fault::new(0, message, None)),
        }
    }
}

fn text_fault(text: &str) -> Option<Fault> {
    if text.starts_with('\u{feff}') {
        let help = "save it as UTF-8 without one";
        let message = "a byte order mark stands before the text";
        return Some(Fault::new(0, message, Some(help)));
    }
    let at = text.find('\0')?;
    Some(Fault::new(at, "a NUL byte: this is no text file", None))
}

/// Reads a config file; the error is why it cannot be read.
pub(super) fn config(path: &Path) -> Result<Text, String> {
    let bytes = capped(path, CONFIG_CAP).map_err(why)?;
    Ok(bytes.map_or_else(Text::too_large, Text::from_bytes))
}

/// The files that an include pattern means, sorted; one without a wildcard means one file, whether
/// it is there or not. What cannot be looked into is never taken for empty, nor a dangling link for
/// nothing: the routes behind it would vanish without a word. The error is what is wrong.
pub(super) fn matching(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if !is_wild(pattern) {
        return Ok(vec![dir.join(pattern)]);
    }
    let folder = glob::Pattern::escape(&dir.to_string_lossy());
    let full = Path::new(&folder).join(looking(pattern));
    let paths = glob::glob_with(&full.to_string_lossy(), AS_A_SHELL)
        .map_err(|error| format!("not a glob pattern: {}", error.msg))?;
    searchable(&dir.join(plain(pattern)))?;
    let paths: Result<Vec<PathBuf>, _> = paths.collect();
    let mut paths = paths.map_err(|error| {
        let folder = error.path().to_path_buf();
        cannot_look_into(&folder, error.into())
    })?;
    paths.retain(|path| !path.is_dir());
    paths.sort();
    Ok(paths)
}

fn is_wild(part: &str) -> bool {
    part.contains(['*', '?', '['])
}

/// The same pattern, so written that glob lists every folder after the first wildcard: in one
/// where it only asks for a name, it takes a refusal for an absence.
fn looking(pattern: &str) -> String {
    let mut wild = false;
    let parts = pattern.split('/').map(|part| {
        wild |= is_wild(part);
        match part.chars().next() {
            Some(first) if wild && !is_wild(part) && first.is_ascii_alphanumeric() => {
                format!("[{first}]{}", &part[1..])
            }
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The folders of a pattern that stand before its first wildcard.
fn plain(pattern: &str) -> PathBuf {
    let parts = Path::new(pattern).components();
    let wild = |part: &Component<'_>| is_wild(&part.as_os_str().to_string_lossy());
    parts.take_while(|part| !wild(part)).collect()
}

/// A folder that is not there holds nothing; one that is there must let itself be read, and glob
/// says nothing where it may not even see it.
fn searchable(folder: &Path) -> Result<(), String> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let absent = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound && folder.symlink_metadata().is_err()
    };
    match folder.read_dir() {
        Err(error) if !absent(&error) => Err(cannot_look_into(folder, error)),
        _ => Ok(()),
    }
}

fn cannot_look_into(folder: &Path, error: io::Error) -> String {
    let folder = folder.display();
    format!("cannot look into \"{folder}\": {}", why(error))
}

/// Reads every file that a section names.
pub(super) fn named(dir: &Path, config: &Config) -> Files {
    let mut files = Files::default();
    for file in config.files() {
        let content = match capped(&dir.join(&file.value), FILE_CAP) {
            Ok(Some(bytes)) => Ok(Bytes::from(bytes)),
            Ok(None) => Err(format!("larger than {} MiB", FILE_CAP >> 20)),
            Err(error) => Err(why(error)),
        };
        files.insert(file.value.clone(), content);
    }
    files
}

/// The whole file, or `None` if it is larger than `cap`.
fn capped(path: &Path, cap: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    // A FIFO that nobody writes to would keep the reader waiting, and the control thread with it.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|len| len <= cap);
    Ok(fits.then_some(bytes))
}

/// The reason in words, without the number of the error.
fn why(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}
