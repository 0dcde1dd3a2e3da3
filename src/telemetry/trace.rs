//! W3C Trace Context and Baggage as they arrive: what may be passed on.
//!
//! Pure functions of bytes. A `traceparent` that is not valid is dropped together with its
//! `tracestate` (CONVENTIONS 3); whoever calls this decides on trust and does the dropping. The
//! functions never allocate and look at no more bytes than the limits allow, so a field of any
//! size costs a bounded time.

/// Length of a version-00 `traceparent`.
const LENGTH: usize = 55;
/// W3C Trace Context 3.3.1.1: at most this many list members.
const TRACESTATE_MEMBERS: usize = 32;
/// W3C Baggage 3.3.2: at most this many list members, over all fields together.
const BAGGAGE_MEMBERS: usize = 64;
/// W3C Baggage 3.3.2: and at most this many bytes.
const BAGGAGE_BYTES: usize = 8_192;

/// Whether a `traceparent` may be passed on: version `00` of exactly 55 characters, or a higher
/// one (not `ff`) whose first 55 read the same and end there or at a `-`. Hex is lower case and
/// neither id is all zero.
pub fn valid(traceparent: &[u8]) -> bool {
    let Some((head, rest)) = traceparent.split_at_checked(LENGTH) else {
        return false;
    };
    let version = &head[..2];
    let end = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let fields = hex(version) && hex(&head[53..]) && id(&head[3..35]) && id(&head[36..52]);
    end && dashes && fields
}

/// The trace-id of a valid `traceparent`: 32 characters of lower-case hex.
pub fn trace_id(traceparent: &[u8]) -> Option<&str> {
    if !valid(traceparent) {
        return None;
    }
    std::str::from_utf8(&traceparent[3..35]).ok()
}

/// Whether `tracestate` (all its fields) stays within 32 members.
pub fn tracestate_fits<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> bool {
    members_within(fields, TRACESTATE_MEMBERS)
}

/// Whether `baggage` (all its fields) stays within 64 members and 8,192 bytes.
pub fn baggage_fits<'a>(fields: impl IntoIterator<Item = &'a [u8]> + Clone) -> bool {
    let bytes: usize = fields.clone().into_iter().map(<[u8]>::len).sum();
    bytes <= BAGGAGE_BYTES && members_within(fields, BAGGAGE_MEMBERS)
}

fn members_within<'a>(fields: impl IntoIterator<Item = &'a [u8]>, most: usize) -> bool {
    let members = fields.into_iter().flat_map(|f| f.split(|b| *b == b','));
    let filled = members.filter(|m| !m.trim_ascii().is_empty());
    filled.take(most + 1).count() <= most
}

fn hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn id(text: &[u8]) -> bool {
    hex(text) && text.iter().any(|b| *b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_of_version_00_is_valid_and_gives_its_trace_id() {
        assert!(valid(GOOD.as_bytes()));
        assert_eq!(
            trace_id(GOOD.as_bytes()),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
    }

    #[test]
    fn a_higher_version_is_read_by_its_first_55_characters() {
        let higher = GOOD.replacen("00", "cc", 1);
        assert!(valid(higher.as_bytes()));
        assert!(valid(format!("{higher}-what-the-future-will").as_bytes()));
        assert!(!valid(format!("{higher}.what").as_bytes()));
    }

    #[test]
    fn whatever_bends_a_rule_is_not_valid() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let bad = [
            String::new(),
            "00".into(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            GOOD[..54].into(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0g", 1),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            zero_trace,
            zero_parent,
            "0".repeat(10 * 1024),
        ];
        for text in bad {
            assert!(!valid(text.as_bytes()), "{text}");
            assert_eq!(trace_id(text.as_bytes()), None);
        }
        assert!(!valid(&[0xff; 55]));
    }

    #[test]
    fn no_byte_out_of_place_passes() {
        for at in 0..LENGTH {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = b'Z';
            assert!(!valid(&bytes), "at {at}");
        }
    }

    #[test]
    fn tracestate_has_at_most_32_members_over_all_fields() {
        let members = |n: usize| vec!["a=1"; n].join(",");
        assert!(tracestate_fits([members(32).as_bytes()]));
        assert!(tracestate_fits([
            members(16).as_bytes(),
            b" , ",
            members(16).as_bytes()
        ]));
        assert!(!tracestate_fits([members(33).as_bytes()]));
        assert!(!tracestate_fits([members(32).as_bytes(), b"b=2"]));
    }

    #[test]
    fn baggage_is_limited_in_members_and_in_bytes() {
        let members = |n: usize| vec!["k=v"; n].join(",");
        assert!(baggage_fits([members(64).as_bytes()]));
        assert!(!baggage_fits([members(65).as_bytes()]));
        assert!(baggage_fits([vec![b'a'; 8_192].as_slice()]));
        assert!(!baggage_fits([vec![b'a'; 8_193].as_slice()]));
        assert!(!baggage_fits([[b'a'; 8_000].as_slice(), &[b'b'; 200]]));
    }
}
