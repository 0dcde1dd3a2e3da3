//! Dates, in the three forms there are (RFC 9110 5.6.7).
use std::time::SystemTime;

/// The moment a date names. Letters count in any case (RFC 9111 4.2); any zone but GMT makes it
/// invalid. `now` places the years of two digits.
pub fn parse(_text: &[u8], _now: SystemTime) -> Option<SystemTime> {
    unimplemented!()
}
