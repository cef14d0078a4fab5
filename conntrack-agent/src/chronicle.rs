//! What has happened lately, numbered, for whoever wants to follow it.
//!
//! It is kept in memory alone, and so much of it: who was away for longer is told
//! how much was missed. The audit trail is what lasts.

mod happening;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

pub use happening::{Happening, Has, RuleText};

/// How many are kept: of some hundred bytes each, but for changes of many rules.
const KEPT: usize = 2048;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number: one more than that of the one before, from 1 at the agent's
    /// start.
    pub sequence: u64,
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: Happening,
}

/// What has happened after some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// How many came before them that are not kept any more.
    pub missed: u64,
    /// The number of the last.
    pub last: u64,
}

/// What has happened, as far as it is kept.
#[derive(Debug)]
pub struct Chronicle {
    /// Which run of the agent it is of: numbers begin anew with each.
    run: Uuid,
    kept: Mutex<VecDeque<Arc<Entry>>>,
    newest: watch::Sender<Newest>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    sequence: u64,
    /// Nobody is to wait for more.
    is_ended: bool,
}

impl Default for Chronicle {
    fn default() -> Self {
        Self {
            run: Uuid::new_v4(),
            kept: Mutex::default(),
            newest: watch::Sender::default(),
        }
    }
}

impl Chronicle {
    /// Which run of the agent it is of.
    #[must_use]
    pub const fn run(&self) -> Uuid {
        self.run
    }

    /// Something has happened just now.
    pub fn note(&self, what: Happening) {
        let mut kept = self.kept();
        let sequence = self.newest.borrow().sequence + 1;
        kept.push_back(Arc::new(Entry {
            sequence,
            at: SystemTime::now(),
            what,
        }));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        // While it is held, or a number could be told of before what has it.
        self.newest.send_modify(|newest| newest.sequence = sequence);
    }

    /// What has happened after the one with this number, at most so many of them.
    /// A number that there isn't yet is that of another run: all that there is.
    #[must_use]
    pub fn after(&self, sequence: u64, most: usize) -> Excerpt {
        let kept = self.kept();
        let newest = self.newest.borrow().sequence;
        let sequence = if sequence > newest { 0 } else { sequence };
        let entries = kept.iter().filter(|entry| entry.sequence > sequence);
        let entries: Vec<_> = entries.take(most).cloned().collect();
        let first = entries.first().map_or(newest + 1, |entry| entry.sequence);
        Excerpt {
            missed: first - sequence - 1,
            last: entries.last().map_or(newest, |entry| entry.sequence),
            entries,
        }
    }

    /// The number of the last one.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.newest.borrow().sequence
    }

    /// Waits until there is one after that with this number, but no longer than
    /// this, nor after [`Self::end`].
    pub async fn wait(&self, sequence: u64, limit: Duration) {
        let mut newest = self.newest.subscribe();
        let more = newest.wait_for(|newest| newest.is_ended || newest.sequence != sequence);
        // That the time is over, or the sender gone, is as good as news.
        let _ = timeout(limit, more).await;
    }

    /// Nobody is to wait any more: the agent ends.
    pub fn end(&self) {
        self.newest.send_modify(|newest| newest.is_ended = true);
    }

    /// It is in order whoever panicked while he had it.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(count: u64) -> Happening {
        Happening::Untold { count }
    }

    fn numbers(excerpt: &Excerpt) -> Vec<u64> {
        excerpt.entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn each_is_told_once_in_order() {
        let chronicle = Chronicle::default();
        assert_eq!(chronicle.after(0, 9), Excerpt::default());
        for count in 1..=3 {
            chronicle.note(lost(count));
        }
        let all = chronicle.after(0, 9);
        assert_eq!((numbers(&all), all.missed, all.last), (vec![1, 2, 3], 0, 3));
        let some = chronicle.after(1, 1);
        assert_eq!((numbers(&some), some.missed, some.last), (vec![2], 0, 2));
        let none = chronicle.after(3, 9);
        assert_eq!((numbers(&none), none.missed, none.last), (vec![], 0, 3));
        // Of a run before this one.
        assert_eq!(chronicle.after(4, 9), all);
    }

    #[test]
    fn what_is_not_kept_any_more_is_counted() {
        let chronicle = Chronicle::default();
        for count in 0..KEPT as u64 + 10 {
            chronicle.note(lost(count));
        }
        let all = chronicle.after(0, usize::MAX);
        assert_eq!((all.entries.len(), all.missed), (KEPT, 10));
        assert_eq!(chronicle.after(4, usize::MAX).missed, 6);
        assert_eq!(chronicle.after(10, usize::MAX).missed, 0);
    }

    /// Without the waking it would hang.
    #[tokio::test]
    async fn who_waits_is_woken_by_news_and_by_the_end() {
        let chronicle = Arc::new(Chronicle::default());
        let hour = Duration::from_hours(1);
        let wait = |after| {
            let chronicle = Arc::clone(&chronicle);
            tokio::spawn(async move { chronicle.wait(after, hour).await })
        };
        let waiting = wait(0);
        tokio::task::yield_now().await;
        chronicle.note(lost(1));
        waiting.await.unwrap();
        // There is one already.
        chronicle.wait(0, hour).await;
        let waiting = wait(1);
        tokio::task::yield_now().await;
        chronicle.end();
        waiting.await.unwrap();
        let idle = Chronicle::default();
        idle.wait(0, Duration::from_millis(1)).await;
    }
}
