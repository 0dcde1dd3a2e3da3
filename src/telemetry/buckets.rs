//! The bounds of all histograms: times in nanoseconds, sizes in bytes.
//! They are those of CONVENTIONS 1.1, and change with it alone: dashboards rest on them.

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// `REQUEST` of CONVENTIONS: 0.5 ms to 10 s.
pub const REQUEST: &[u64] = &[
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    10_000 * MS,
];
/// `WAIT`: 0.1 ms to 2.5 s.
pub const WAIT: &[u64] = &[
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    2_500 * MS,
];
/// `LOOP`: 10 us to 250 ms.
pub const LOOP: &[u64] = &[
    10 * US,
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
];

/// `AGE`: 1 s to a week.
pub const AGE: &[u64] = &[
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
    300 * SECOND,
    900 * SECOND,
    3_600 * SECOND,
    14_400 * SECOND,
    86_400 * SECOND,
    604_800 * SECOND,
];
/// `SIZE`: 256 bytes to 16 MiB.
pub const SIZE: &[u64] = &[
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
];
