//! Dates, in the three forms there are (RFC 9110 5.6.7).
//!
//! Ours and not `httpdate`'s parser, because a cache reads letters in any case (RFC 9111 4.2), places
//! years of two digits by what year it is, and takes no form beside the three.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// The moment a date names. Letters count in any case (RFC 9111 4.2); any zone but GMT makes it
/// invalid. `now` places the years of two digits. Dates before 1970 are as 1970.
pub fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    match text.split_once(',') {
        Some((day, rest)) if day.len() == 3 => imf(day, rest),
        Some((day, rest)) => rfc850(day, rest, now),
        None => asctime(text),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf(day: &str, rest: &str) -> Option<SystemTime> {
    short_day(day)?;
    let rest = zoned(rest.strip_prefix(' ')?)?;
    let mut words = rest.split(' ');
    let (date, month, year) = (words.next()?, words.next()?, words.next()?);
    let time = words.next()?;
    if words.next().is_some() {
        return None;
    }
    moment(number(year, 4)?, month, number(date, 2)?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(day: &str, rest: &str, now: SystemTime) -> Option<SystemTime> {
    DAYS.iter().find(|name| day.eq_ignore_ascii_case(name))?;
    let rest = zoned(rest.strip_prefix(' ')?)?;
    let (date, time) = rest.split_once(' ')?;
    let mut words = date.split('-');
    let (date, month, year) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let (date, two) = (number(date, 2)?, number(year, 2)?);
    moment(century(two, now), month, date, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<SystemTime> {
    let (day, rest) = text.split_at_checked(4)?;
    short_day(day.strip_suffix(' ')?)?;
    let (month, rest) = rest.split_at_checked(4)?;
    let (date, rest) = rest.split_at_checked(3)?;
    let date = date.strip_suffix(' ')?;
    let date = match date.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(date, 2)?,
    };
    let (time, year) = rest.split_once(' ')?;
    moment(number(year, 4)?, month.strip_suffix(' ')?, date, time)
}

/// What stands before ` GMT`.
fn zoned(text: &str) -> Option<&str> {
    let (rest, zone) = text.rsplit_once(' ')?;
    zone.eq_ignore_ascii_case("GMT").then_some(rest)
}

fn short_day(day: &str) -> Option<()> {
    let named = |name: &&&str| day.eq_ignore_ascii_case(&name[..3]);
    DAYS.iter().find(named).map(|_| ())
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let good = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

/// A year of two digits that seems to be more than 50 years ahead is the last such one.
fn century(two: u64, now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let this = 1970 + since.as_secs() / 31_556_952;
    let year = this - this % 100 + two;
    match year {
        _ if year > this + 50 => year - 100,
        _ if year + 50 <= this => year + 100,
        _ => year,
    }
}

fn moment(year: u64, month: &str, date: u64, time: &str) -> Option<SystemTime> {
    let index = MONTHS
        .iter()
        .position(|name| month.eq_ignore_ascii_case(name))?;
    let month = u64::try_from(index).ok()? + 1;
    let mut words = time.split(':');
    let hour = number(words.next()?, 2)?;
    let minute = number(words.next()?, 2)?;
    let second = number(words.next()?, 2)?;
    let over = words.next().is_some() || hour > 23 || minute > 59 || second > 60;
    if over || date == 0 || date > month_len(year, month) {
        return None;
    }
    let secs = hour * 3600 + minute * 60 + second;
    let Some(days) = days(year, month, date) else {
        return Some(UNIX_EPOCH);
    };
    UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + secs))
}

fn month_len(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970, counted in years that begin in March.
fn days(year: u64, month: u64, date: u64) -> Option<u64> {
    let (year, month) = match month {
        1 | 2 => (year.checked_sub(1)?, month + 9),
        _ => (year, month - 3),
    };
    let leaps = year / 4 + year / 400 - year / 100;
    let in_year = (153 * month + 2) / 5 + date - 1;
    (year * 365 + leaps + in_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000;

    fn secs(text: &str) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let moment = parse(text.as_bytes(), now)?;
        Some(moment.duration_since(UNIX_EPOCH).expect("after").as_secs())
    }

    #[test]
    fn rfc9110_5_6_7_all_three_forms_name_the_same_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(secs(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn rfc9110_5_6_7_two_digits_more_than_50_years_ahead_are_in_the_past() {
        let year = |two: &str| secs(&format!("Sunday, 06-Nov-{two} 08:49:37 GMT"));
        assert_eq!(year("75"), secs("Sun, 06 Nov 2075 08:49:37 GMT"));
        assert_eq!(year("77"), secs("Sun, 06 Nov 1977 08:49:37 GMT"));
    }

    #[test]
    fn rfc9111_4_2_letters_count_in_any_case() {
        let good = secs("Thu, 18 Aug 2050 02:01:18 GMT");
        assert!(good.is_some());
        for text in [
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
        ] {
            assert_eq!(secs(text), good, "{text}");
        }
    }

    #[test]
    fn rfc9111_4_2_anything_else_is_no_date() {
        for text in [
            "0",
            "",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 32 Aug 2050 02:01:18 GMT",
            "Thu, 29 Feb 2051 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, x",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_before_1970_is_as_1970() {
        assert_eq!(secs("Mon, 01 Jan 0001 00:00:00 GMT"), Some(0));
        assert_eq!(secs("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(secs("Mon, 01 Jan 0000 00:00:00 GMT"), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(at in 0_u64..253_402_300_000) {
            let moment = UNIX_EPOCH + Duration::from_secs(at);
            prop_assert_eq!(secs(&httpdate::fmt_http_date(moment)), Some(at));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            parse(&bytes, UNIX_EPOCH);
        }
    }
}
