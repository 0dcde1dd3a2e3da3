//! What is stored, for all routes and workers: bounded by bytes, written off the workers.
//!
//! Where it stands is behind a trait (`shelf`). That is asked by workers and written by the control thread alone, from a
//! bounded queue: so changes of one key never race, and no worker waits for room to be made. What
//! does not fit into the queue is not stored, and counted. What is purged is never served from that
//! moment on (`stamps`); its memory is let go by a sweep behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::budget::{Budget, Hold};
use super::entry::{Entry, Object};
use super::flight::{Flight, Flights, Source};
use super::key::{Key, Secrets};
use super::shy::Shy;
use super::stamps::{Purge, Stamps};
use crate::clock;
use crate::telemetry::cache::{CacheCells, Evicted, Inserted, Purged};
use shelf::Moka;
pub use shelf::Shelf;

mod shelf;

/// Answers that wait to be stored.
const QUEUE: usize = 4096;
/// Taken out of the queue at once.
const BATCH: usize = 64;
/// Bodies being fetched or waiting to be stored may take this share of the memory beside it.
const UNDERWAY: u64 = 8;
/// One key may take this share of the memory.
const SHARE: u64 = 8;
/// How often the shelf is tidied when nothing else happens.
const TIDY: Duration = Duration::from_millis(250);
/// Keys looked at by a sweep before others get a turn.
const STEP: usize = 512;

/// What the control thread is to do.
enum Order {
    Put(Key, Arc<Entry>, Arc<Flight>, Hold),
    /// Look whether something under this key is dead or spent.
    Look(u128),
}

/// What was found for a request.
#[derive(Debug, Default)]
pub struct Found {
    /// The answer.
    pub entry: Option<Arc<Entry>>,
    /// What there is under its key.
    pub object: Option<Arc<Object>>,
}

/// The store.
pub struct Store {
    shelf: Box<dyn Shelf>,
    memory: u64,
    stamps: Stamps,
    /// Fetches under way.
    pub flights: Flights,
    /// Keys whose answers are for one client alone.
    pub shy: Shy,
    /// What keys are hashed under.
    pub secrets: Secrets,
    /// Its numbers.
    pub cells: Arc<CacheCells>,
    /// When it was made.
    pub start: Instant,
    /// The memory of bodies that are not stored yet.
    pub underway: Arc<Budget>,
    orders: mpsc::Sender<Order>,
    inbox: Mutex<Option<mpsc::Receiver<Order>>>,
    sweep: Notify,
    posts: AtomicUsize,
}

/// A POST under way, whose answer may come to be stored.
pub struct Posting(Arc<Store>);

impl Drop for Posting {
    fn drop(&mut self) {
        self.0.posts.fetch_sub(1, Relaxed);
    }
}

impl Store {
    /// An empty one for this many bytes.
    pub fn new(memory: u64, cells: Arc<CacheCells>) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        Store {
            shelf: Box::new(Moka::new(memory, Arc::clone(&cells))),
            memory,
            stamps: Stamps::default(),
            flights: Flights::default(),
            shy: Shy::default(),
            secrets: Secrets::default(),
            cells,
            start: clock::now(),
            underway: Arc::new(Budget::new(memory / UNDERWAY)),
            orders,
            inbox: Mutex::new(Some(inbox)),
            sweep: Notify::new(),
            posts: AtomicUsize::new(0),
        }
    }

    /// Its bound, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Objects, and what they weigh.
    pub fn size(&self) -> (u64, u64) {
        self.shelf.size()
    }

    /// Purges so far: what a fetch that begins now is born at.
    pub fn epoch(&self) -> u64 {
        self.stamps.epoch()
    }

    /// Whether nothing has purged it since its fetch began.
    pub fn is_alive(&self, about: &super::stamps::About) -> bool {
        self.stamps.is_alive(about)
    }

    /// The answer for a request with these fields, and what else is under its key.
    pub fn find(&self, key: &Key, asked: &HeaderMap) -> Found {
        self.find_in(self.shelf.get(key.hash()), key, asked)
    }

    /// The same, for a request that has been counted.
    pub fn find_again(&self, key: &Key, asked: &HeaderMap) -> Found {
        self.find_in(self.standing(key.hash()), key, asked)
    }

    fn find_in(&self, object: Option<Arc<Object>>, key: &Key, asked: &HeaderMap) -> Found {
        let landed = self
            .flights
            .landed(key, asked)
            .filter(|entry| self.serves(entry));
        let object = object.filter(|o| *o.parts == *key.parts());
        let entry = landed.or_else(|| {
            let object = object.as_ref()?;
            let entry = object.select(asked)?;
            if self.serves(entry) {
                return Some(Arc::clone(entry));
            }
            self.have_looked_at(key);
            let mut others = object.entries.iter().filter(|e| self.serves(e));
            others.find(|e| e.head.suits(asked)).cloned()
        });
        Found { entry, object }
    }

    fn serves(&self, entry: &Entry) -> bool {
        !entry.outdated.load(Relaxed) && self.stamps.is_alive(&entry.head.about)
    }

    /// Hands a whole answer over to be stored. The flight is left once it is, so that the answer is
    /// always to be found.
    pub fn put(&self, key: Key, entry: Arc<Entry>, flight: Arc<Flight>, source: Source) {
        self.flights.land(&flight, Arc::clone(&entry), source);
        let hold = self.underway.hold(entry.body.len());
        let Err(refused) = self.orders.try_send(Order::Put(key, entry, flight, hold)) else {
            return;
        };
        self.cells.insertions[Inserted::QueueFull as usize].inc();
        if let Order::Put(key, _, flight, _) = refused.into_inner() {
            self.flights.leave(&key, &flight);
        }
    }

    /// A later answer says that this one is no longer true.
    pub fn outdate(&self, key: &Key, entry: &Entry) {
        entry.outdated.store(true, Relaxed);
        self.have_looked_at(key);
    }

    /// Something under this key serves nobody any more. Its memory may go; whether it does now or with
    /// the next sweep is all one.
    pub fn have_looked_at(&self, key: &Key) {
        drop(self.orders.try_send(Order::Look(key.hash())));
    }

    /// Whether there is anything under this key, stored or under way.
    pub fn holds(&self, key: &Key) -> bool {
        self.flights.any(key) || self.shelf.holds(key.hash())
    }

    /// Serves nothing any more that this is about.
    pub fn purge(&self, what: Purge, kind: Purged) {
        self.stamps.purge(what);
        self.cells.purges[kind as usize].inc();
        self.sweep.notify_one();
    }

    /// A POST is under way: until it is dropped, [`Store::supersede`] misses no change of its target.
    pub fn posting(self: &Arc<Self>) -> Posting {
        self.posts.fetch_add(1, Relaxed);
        Posting(Arc::clone(self))
    }

    /// Requests of that kind under way.
    pub fn posts(&self) -> usize {
        self.posts.load(Relaxed)
    }

    /// The answer to what was `sent` under this key is newer than all that is stored there. `None` if
    /// the target was changed or purged meanwhile; else the epoch at which the answer is born.
    pub fn supersede(&self, sent: &super::stamps::About, key: &Key) -> Option<u64> {
        self.cells.purges[Purged::UnsafeMethod as usize].inc();
        let born = self.stamps.supersede(sent);
        self.have_looked_at(key);
        born
    }

    /// Serves nothing any more that an unsafe request has made untrue.
    pub fn invalidate(&self, what: Purge, key: &Key) {
        self.stamps.purge(what);
        self.cells.purges[Purged::UnsafeMethod as usize].inc();
        self.have_looked_at(key);
    }

    /// The work of the control thread, as long as the store is used. The second call does nothing.
    pub async fn housekeeping(self: Arc<Self>) {
        let Some(mut inbox) = self.inbox.lock().take() else {
            return;
        };
        let mut batch = Vec::with_capacity(BATCH);
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = inbox.recv_many(&mut batch, BATCH) => {
                    batch.drain(..).for_each(|order| self.obey(order));
                    self.shelf.tidy();
                    tokio::task::yield_now().await;
                }
                () = self.sweep.notified() => self.sweep().await,
                _ = tidy.tick() => self.shelf.tidy(),
            }
        }
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Put(key, entry, flight, hold) => {
                self.store(&key, &entry);
                drop(hold);
                self.flights.leave(&key, &flight);
            }
            Order::Look(key) => self.look(key),
        }
    }

    fn store(&self, key: &Key, entry: &Arc<Entry>) {
        if !self.serves(entry) {
            self.cells.evictions[Evicted::Purged as usize].inc();
            return;
        }
        let before = self.standing(key.hash());
        let before = before.filter(|o| *o.parts == *key.parts());
        let alive = |old: &Entry| self.serves(old);
        let most = self.memory / SHARE;
        let object = Object::with(
            before.as_deref(),
            key.parts().into(),
            Arc::clone(entry),
            most,
            alive,
        );
        let gone = before.map_or(0, |before| before.entries.len() + 1 - object.entries.len());
        self.cells.evictions[Evicted::Replaced as usize].add(gone as u64);
        self.cells.insertions[Inserted::Stored as usize].inc();
        self.shelf.put(key.hash(), Arc::new(object));
    }

    /// What stands under a key. Only what clients ask for is to count, so an absent one is not asked
    /// for.
    fn standing(&self, key: u128) -> Option<Arc<Object>> {
        self.shelf.holds(key).then(|| self.shelf.get(key)).flatten()
    }

    /// Lets the dead go that stand under a key, and what nothing can be done with any more.
    fn look(&self, key: u128) {
        let Some(object) = self.standing(key) else {
            return;
        };
        let now = clock::now();
        let spent = |entry: &Entry| entry.head.terms.is_spent(now);
        let purged = object.count(|entry| !self.serves(entry));
        let expired = object.count(|entry| self.serves(entry) && spent(entry));
        if purged + expired == 0 {
            return;
        }
        self.cells.evictions[Evicted::Purged as usize].add(purged);
        self.cells.evictions[Evicted::Expired as usize].add(expired);
        match object.without(|entry| self.serves(entry) && !spent(entry)) {
            Some(rest) => self.shelf.put(key, Arc::new(rest)),
            None => self.shelf.remove(key),
        }
    }

    /// Lets go of all that is dead, a few at a time.
    async fn sweep(&self) {
        let epoch = self.stamps.epoch();
        // A POST asks of its target since it was sent, and is on no flight yet.
        let oldest = match self.posts() {
            0 => self.flights.oldest().unwrap_or(u64::MAX),
            _ => 0,
        };
        for step in self.shelf.keys().chunks(STEP) {
            step.iter().for_each(|key| self.look(*key));
            self.shelf.tidy();
            tokio::task::yield_now().await;
        }
        self.stamps.swept(epoch, oldest);
    }
}

#[cfg(test)]
mod tests;
