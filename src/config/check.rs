//! Rules that span sections, and rules on values that no type holds.

use super::Config;
use super::decode::Lost;
use crate::problem::Problems;

/// Checks a config that was decoded whole.
pub fn check(config: &Config, problems: &mut Problems) {
    check_partial(config, &Lost::default(), problems);
}

/// Checks what is left of a config after `lost` was taken out of it.
pub(super) fn check_partial(config: &Config, lost: &Lost, problems: &mut Problems) {
    let _ = (config, lost, problems);
}
