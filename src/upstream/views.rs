//! One view of an upstream's endpoints for all stacks of a worker.
//!
//! A view grows with the endpoints and is looked over each second: one for every route would make
//! that the product of both. It lives as long as a stack uses it, and belongs to the very
//! [`Upstream`]: the one of that name in the next plan gets another.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Upstream;
use super::balance;
use super::choose::View;

/// The views of one worker, by upstream.
#[derive(Default)]
pub(super) struct Views(Mutex<HashMap<Arc<str>, Known>>);

struct Known {
    upstream: Weak<Upstream>,
    view: Weak<Mutex<View>>,
}

impl Views {
    /// The view of an upstream, made for the first stack that asks for it.
    pub(super) fn of(&self, upstream: &Arc<Upstream>, worker: usize) -> Arc<Mutex<View>> {
        let mut views = self.0.lock();
        let known = views.get(&upstream.name);
        let known = known.filter(|known| known.upstream.as_ptr() == Arc::as_ptr(upstream));
        if let Some(view) = known.and_then(|known| known.view.upgrade()) {
            return view;
        }
        let seed = balance::hash(upstream.name.as_bytes()) ^ worker as u64;
        let view = Arc::new(Mutex::new(View::new(seed)));
        let known = Known {
            upstream: Arc::downgrade(upstream),
            view: Arc::downgrade(&view),
        };
        views.insert(Arc::clone(&upstream.name), known);
        view
    }

    /// Forgets those that no stack uses any more.
    pub(super) fn tidy(&self) {
        self.0
            .lock()
            .retain(|_, known| known.view.strong_count() > 0);
    }
}
