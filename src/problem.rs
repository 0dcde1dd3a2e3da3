//! Complaints about a config: all of them, each with its place.
//!
//! A [`Problem`] carries a span into the one virtual text that all files of a config make up
//! ([`Sources`]), so that an included file is named rightly; [`Located`] is a value that
//! remembers where it stood. Rooms push what they find wrong into [`Problems`] and go on: the
//! operator gets the whole list. Rendering (file:line:col, the line, a caret, help) lives here,
//! for people and as JSON. Request-time failures are `GatewayError`, never this.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::filled::Filled;

/// Bytes of the virtual text; empty where a default stands and the file says nothing.
pub type Span = Range<usize>;

/// A value and where it stood in the config.
#[derive(Debug, Clone, Default)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stood; `0..0` for a default.
    pub span: Span,
}

impl<T> Located<T> {
    /// A value that no file stated.
    pub fn unstated(value: T) -> Self {
        Located { value, span: 0..0 }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    /// Two values are equal wherever they stood: a moved line is not a change.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

impl<T: PartialOrd> PartialOrd for Located<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for Located<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

impl Borrow<str> for Located<String> {
    fn borrow(&self) -> &str {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(d)?;
        let span = spanned.span();
        Ok(Located {
            value: spanned.into_inner(),
            span,
        })
    }
}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(s)
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// One complaint.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong, without a full stop.
    pub message: String,
    /// Where; `None` if the fault has no place in a file.
    pub span: Option<Span>,
    /// Other places that have a part in it, each with a few words.
    pub also: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A complaint about one place. The empty span of a default counts as no place.
    pub fn at(span: &Span, message: impl Into<String>) -> Self {
        let span = (!span.is_empty()).then(|| span.clone());
        Problem {
            message: message.into(),
            span,
            also: Vec::new(),
            help: None,
        }
    }

    /// A complaint without a place.
    pub fn general(message: impl Into<String>) -> Self {
        Problem {
            message: message.into(),
            span: None,
            also: Vec::new(),
            help: None,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points to another place that has a part in it.
    #[must_use]
    pub fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        if !span.is_empty() {
            self.also.push((span.clone(), label.into()));
        }
        self
    }
}

/// All complaints about one config.
#[derive(Debug, Clone, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// None yet.
    pub fn new() -> Self {
        Problems::default()
    }

    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of the files, those without a place first, twins once.
    pub fn sorted(&self) -> Vec<&Problem> {
        let mut list: Vec<&Problem> = self.0.iter().collect();
        list.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
        list.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        list
    }

    /// All of them for people: a snippet with a caret for each, a count at the end.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let list = self.sorted();
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for problem in &list {
            let problem = problem.as_shown(sources);
            out.push_str(&renderer.render(&[problem.group(sources)]));
            out.push_str("\n\n");
        }
        let plural = if list.len() == 1 { "" } else { "s" };
        out.push_str(&format!("{} problem{plural}\n", list.len()));
        out
    }

    /// All of them for programs: file, line, column, message, help.
    pub fn to_json(&self, sources: &Sources) -> serde_json::Value {
        let one = |p: &Problem| {
            let p = p.as_shown(sources);
            let place = p.span.as_ref().and_then(|s| sources.place(s));
            serde_json::json!({
                "message": p.message,
                "help": p.help,
                "file": place.as_ref().map(|p| p.file.display().to_string()),
                "line": place.as_ref().map(|p| p.line),
                "column": place.as_ref().map(|p| p.column),
            })
        };
        self.sorted().into_iter().map(one).collect()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.0.extend(problems);
    }
}

impl Problem {
    /// With what the files say in the place of what the environment filled in.
    fn as_shown(&self, sources: &Sources) -> Problem {
        let also = self.also.iter().map(|(span, _)| span);
        let places: Vec<&Span> = self.span.iter().chain(also).collect();
        let cover = |words: &String| sources.filled.cover(&places, words).into_owned();
        Problem {
            message: cover(&self.message),
            help: self.help.as_ref().map(cover),
            ..self.clone()
        }
    }

    fn group<'a>(&'a self, sources: &'a Sources) -> Group<'a> {
        let title = Level::ERROR.primary_title(&self.message);
        let mut group = match self.span.as_ref().and_then(|s| sources.snippet(s)) {
            None => Group::with_title(title),
            Some((source, span)) => {
                let mut snippet = source
                    .snippet()
                    .annotation(AnnotationKind::Primary.span(span));
                let mut elsewhere = Vec::new();
                for (span, label) in &self.also {
                    match sources.snippet(span) {
                        Some((other, span)) if std::ptr::eq(other, source) => {
                            let mark = AnnotationKind::Context.span(span).label(label);
                            snippet = snippet.annotation(mark);
                        }
                        Some((other, span)) => {
                            let mark = AnnotationKind::Context.span(span).label(label);
                            elsewhere.push(other.snippet().annotation(mark));
                        }
                        None => {}
                    }
                }
                elsewhere
                    .into_iter()
                    .fold(title.element(snippet), Group::element)
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }
}

/// The files of one config, laid end to end as one virtual text.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
    /// What the environment filled in.
    pub filled: Filled,
}

#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    text: String,
    base: usize,
}

/// Where a span begins, for people: lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The real file, also of an included section.
    pub file: &'a Path,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Sources {
    /// Adds a file and gives the offset of its first byte, at least 1: offset 0 means "no place".
    pub fn add(&mut self, path: PathBuf, text: String) -> usize {
        let base = self.files.last().map_or(1, |f| f.base + f.text.len() + 1);
        self.files.push(Source { path, text, base });
        base
    }

    /// The paths of all files, in the order they were read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }

    /// File, line and column of the first byte of a span.
    pub fn place(&self, span: &Span) -> Option<Place<'_>> {
        let (source, local) = self.snippet(span)?;
        let before = source.text.get(..local.start)?;
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Some(Place {
            file: &source.path,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        })
    }

    fn snippet(&self, span: &Span) -> Option<(&Source, Span)> {
        let source = self.files.iter().rev().find(|f| f.base <= span.start)?;
        let clamp = |at: usize| {
            let mut at = (at - source.base).min(source.text.len());
            while !source.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = clamp(span.start);
        Some((source, start..clamp(span.end.max(span.start)).max(start)))
    }
}

impl Source {
    fn snippet<A: Clone>(&self) -> Snippet<'_, A> {
        Snippet::source(&self.text).path(self.path.to_string_lossy())
    }
}

/// The name nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.75).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_real_file_and_points_at_the_value() {
        let mut sources = Sources::default();
        sources.add("weir.toml".into(), "include = [\"a\"]\n".to_owned());
        let base = sources.add("conf.d/a.toml".into(), "x = 1\nname = \"ab\"\n".to_owned());
        let mut problems = Problems::new();
        problems.push(Problem::at(&(base + 13..base + 17), "no such name").help("use \"abc\""));
        let text = problems.render(&sources, false);
        assert!(text.contains("conf.d/a.toml:2:8"), "{text}");
        assert!(text.contains("^^^^"), "{text}");
        assert!(text.contains("use \"abc\""), "{text}");
        assert!(text.ends_with("1 problem\n"), "{text}");
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("timout", ["timeout", "upstream"]), Some("timeout"));
        assert_eq!(nearest("zzz", ["timeout", "upstream"]), None);
    }
}
