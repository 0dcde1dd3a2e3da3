//! The numbers of policies: limits and compression.
//!
//! Blocks as in `handles`, which owns them and hands them out; they stand here since there are many.

use super::cells::Cell;
use super::words::Skip;
use crate::message::coding::Coding;

/// One block of a limit's numbers.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.4")]
pub struct LimiterCells {
    pub allow: Cell,
    pub deny: Cell,
    pub observed: Cell,
    pub overflow: Cell,
    pub evictions: Cell,
}

/// One block of the numbers of compression.
#[derive(Debug, Default)]
pub struct CompressionCells {
    /// By [`Coding`].
    pub codings: [CodingCells; Coding::ALL.len()],
    /// Answers decoded, by coding.
    pub decoded: [Cell; Coding::ALL.len()],
    /// By [`Skip`].
    pub skipped: [Cell; Skip::ALL.len()],
}

/// The numbers of one coding.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.4")]
pub struct CodingCells {
    pub responses: Cell,
    pub bytes_in: Cell,
    pub bytes_out: Cell,
    pub nanos: Cell,
}
