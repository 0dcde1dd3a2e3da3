//! The numbers of the response cache that belong to no route: what is stored and let go.
//!
//! Counted by workers and by the control thread, off the path of a hit, so by atomic adds.

use super::cells::Tally;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the word beside each variant is its documentation")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [($name, &'static str)] = &[$(($name::$variant, $word),)*];
        }
    };
}

words! {
    /// What the cache did with a request: the labels of `weir_cache_requests_total`.
    Used {
        Hit "hit",
        Stale "stale",
        Miss "miss",
        Revalidated "revalidated",
        Replaced "replaced",
        Collapsed "collapsed",
        Bypass "bypass",
    }
}

words! {
    /// What became of an answer that was to be stored.
    Inserted {
        Stored "stored",
        TooLarge "too_large",
        Truncated "truncated",
        QueueFull "queue_full",
    }
}

words! {
    /// Why a stored answer was let go.
    Evicted {
        Size "size",
        Expired "expired",
        Replaced "replaced",
        Purged "purged",
    }
}

words! {
    /// What was purged.
    Purged {
        Url "url",
        Prefix "prefix",
        Tag "tag",
        All "all",
        UnsafeMethod "unsafe_method",
    }
}

words! {
    /// How a refresh in the background ended.
    Refreshed {
        New "new",
        NotModified "not_modified",
        Failed "failed",
        Cooling "cooling",
    }
}

/// What is counted for the whole cache.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.4")]
pub struct CacheCells {
    pub insertions: [Tally; Inserted::ALL.len()],
    pub evictions: [Tally; Evicted::ALL.len()],
    pub purges: [Tally; Purged::ALL.len()],
    pub refreshes: [Tally; Refreshed::ALL.len()],
}
