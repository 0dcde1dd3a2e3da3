//! A share for each upstream: `split = [{ upstream = "a", weight = 95 }, ...]`.
//!
//! Chosen anew for each request, by weight. A route with one upstream is a split with one share.
//! The choice is made above the retries, so that a request stays with its upstream.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use crate::chance::Chance;
use crate::error::GatewayError;
use crate::message::{Request, Response};

/// Sends each request to one of several services.
#[derive(Debug, Clone)]
pub struct Split<S> {
    shares: Vec<Share<S>>,
    total: u64,
    chance: Arc<Chance>,
}

#[derive(Debug, Clone)]
struct Share<S> {
    /// The weights up to and with this one.
    up_to: u64,
    service: S,
}

impl<S> Split<S> {
    /// Of services and their weights: at least one, and the sum not 0.
    pub fn new(weighted: impl IntoIterator<Item = (u32, S)>, chance: Arc<Chance>) -> Self {
        let mut total = 0;
        let share = |(weight, service)| {
            total += u64::from(weight);
            Share {
                up_to: total,
                service,
            }
        };
        let shares = weighted.into_iter().map(share).collect();
        Split {
            shares,
            total,
            chance,
        }
    }

    fn choose(&mut self) -> &mut S {
        let at = match self.shares.len() {
            1 => 0,
            _ => {
                let number = self.chance.below(self.total);
                self.shares.partition_point(|share| share.up_to <= number)
            }
        };
        let last = self.shares.len() - 1;
        &mut self.shares[at.min(last)].service
    }
}

impl<S> Service<Request> for Split<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // A way to an upstream waits inside `call`: it is always ready.
        self.choose().call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_share_and_a_weight_of_zero_gets_nothing() {
        let weighted = [(95, 'a'), (0, 'b'), (5, 'c')];
        let mut split = Split::new(weighted, Arc::new(Chance::seeded(3)));
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            *seen.entry(*split.choose()).or_insert(0u32) += 1;
        }
        assert!(!seen.contains_key(&'b'));
        assert!((800..1_200).contains(&seen[&'c']), "{seen:?}");
    }
}
