//! A small play of origin, cache and clients for the tests of the policy: no store, no bodies.
//!
//! Field values that begin with `@` are dates, so many seconds from the moment the answer comes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::storable::Exchanged;
use super::*;

/// Name and value.
pub(super) type Lines<'a> = &'a [(&'a str, &'a str)];

/// The moment at which every answer comes.
pub(super) fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

/// Fields from lines.
pub(super) fn map(lines: Lines<'_>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let value = match value.strip_prefix('@') {
            Some(offset) => date(offset.parse().expect("seconds")),
            None => (*value).to_owned(),
        };
        fields.append(name, HeaderValue::from_str(&value).expect("a value"));
    }
    fields
}

/// So many seconds from when the answer comes.
pub(super) fn date(offset: i64) -> String {
    let by = Duration::from_secs(offset.unsigned_abs());
    let moment = match offset < 0 {
        true => wall() - by,
        false => wall() + by,
    };
    httpdate::fmt_http_date(moment)
}

/// What became of a later request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A stored answer was sent.
    Cached,
    /// A stale one was sent.
    Stale,
    /// The origin was asked, by nothing stored.
    Miss,
    /// The origin was asked whether the stored answer still stands.
    Validated,
}

/// An origin's answer to a request.
#[derive(Clone, Debug)]
pub(super) struct Play {
    pub(super) method: Method,
    pub(super) asked: HeaderMap,
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) settings: Settings,
}

/// What is stored of it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) fields: HeaderMap,
    pub(super) terms: Terms,
    pub(super) selected: Selected,
    pub(super) since: Instant,
}

/// An answer of 200 with these fields.
pub(super) fn answers(fields: Lines<'_>) -> Play {
    Play {
        method: Method::GET,
        asked: HeaderMap::new(),
        status: StatusCode::OK,
        fields: map(fields),
        settings: Settings::default(),
    }
}

impl Play {
    pub(super) fn to(mut self, asked: Lines<'_>) -> Self {
        self.asked = map(asked);
        self
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).expect("a status");
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(super) fn storable(&self) -> Result<Keep, Refusal> {
        let stated = Stated::read(&self.fields);
        let exchanged = Exchanged {
            method: &self.method,
            asked: &self.asked,
            status: self.status,
            fields: &self.fields,
            stated: &stated,
        };
        storable(&exchanged, &self.settings)
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms_after(Duration::ZERO)
    }

    /// The answer came so long after it was asked for.
    pub(super) fn terms_after(&self, delay: Duration) -> Terms {
        let came = crate::clock::now();
        let received = Received {
            asked: came
                .checked_sub(delay)
                .expect("the machine runs for longer"),
            came,
            wall: wall(),
        };
        let stated = Stated::read(&self.fields);
        Terms::new(self.status, &self.fields, &stated, received, &self.settings)
    }

    pub(super) fn stored(&self) -> Result<Stored, Refusal> {
        self.storable()?;
        let terms = self.terms();
        let mut fields = self.fields.clone();
        super::fields::strip(&mut fields, &Stated::read(&self.fields), &self.settings);
        let Vary::On(names) = Vary::read(&fields) else {
            return Err(Refusal::Vary);
        };
        Ok(Stored {
            selected: Selected::of(&names, &self.asked).speaking(&self.asked, &fields),
            since: terms.since,
            fields,
            terms,
        })
    }

    /// A request with these fields, so many seconds later.
    pub(super) fn then(&self, secs: u64, asked: Lines<'_>) -> Seen {
        let Ok(stored) = self.stored() else {
            return Seen::Miss;
        };
        let mut asked = map(asked);
        if !stored.selected.matches(&asked) {
            return Seen::Miss;
        }
        let now = stored.since + Duration::from_secs(secs);
        match reuse(&stored.terms, &Asked::read(&asked), now) {
            Reuse::Fresh => Seen::Cached,
            Reuse::Stale(_) => Seen::Stale,
            Reuse::Validate(_) if conditional::ask(&mut asked, &stored.fields) => Seen::Validated,
            Reuse::Validate(_) => Seen::Miss,
        }
    }

    /// A plain request after three seconds.
    pub(super) fn later(&self) -> Seen {
        self.then(3, &[])
    }

    /// Whether the stored answer is sent three seconds later, the origin being gone.
    pub(super) fn when_gone(&self) -> bool {
        let Ok(stored) = self.stored() else {
            return false;
        };
        let now = stored.since + Duration::from_secs(3);
        reuse::disconnected(&stored.terms, &Asked::default(), now)
    }

    /// Whether it is sent so much later, the origin having answered 503.
    pub(super) fn when_failing(&self, secs: u64, asked: Lines<'_>) -> bool {
        let Ok(stored) = self.stored() else {
            return false;
        };
        let now = stored.since + Duration::from_secs(secs);
        reuse::after_failure(&stored.terms, &Asked::read(&map(asked)), now)
    }
}
