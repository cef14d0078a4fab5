//! Holds the state of `top`'s screen, and applies keys and samples to it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use crate::{
    cli::events,
    model::RouterId,
    resource::{AgentStatus, EventView, RouterDetail, RouterTraffic, RuleTraffic},
};

/// The number of past events that are kept for the screen.
const NEWS: usize = 32;

/// The agent's answers at one moment.
pub(super) struct Sample {
    pub(super) status: AgentStatus,
    pub(super) routers: Vec<RouterTraffic>,
    pub(super) events: Vec<EventView>,
    /// The details of the opened router; `None` if it doesn't exist any more.
    pub(super) detail: Option<RouterDetail>,
}

/// The sort order of routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Sorts by packets per second, the most first.
    Traffic,
    /// Sorts by connections without their helper, the most first.
    Lacking,
    /// Sorts by rules, the most first.
    Rules,
    /// Sorts by id.
    Router,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Traffic => Self::Lacking,
            Self::Lacking => Self::Rules,
            Self::Rules => Self::Router,
            Self::Router => Self::Traffic,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Lacking => "lacking",
            Self::Rules => "rules",
            Self::Router => "router",
        }
    }
}

/// An action that a key requests from outside the screen's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Takes another sample at once.
    Sample,
    Quit,
}

/// The state of the screen.
pub(super) struct TopState {
    pub(super) status: Option<AgentStatus>,
    /// The reason why there is no newer sample.
    pub(super) away: Option<String>,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) is_typing: bool,
    /// The router that is opened.
    pub(super) inside: Option<RouterId>,
    pub(super) detail: Option<RouterDetail>,
    /// The latest events as text, and whether somebody should look at each.
    pub(super) news: VecDeque<(String, bool)>,
    selected: Option<RouterId>,
    routers: BTreeMap<RouterId, (RouterTraffic, History)>,
    /// The histories of the opened router's rules.
    rules: BTreeMap<(String, u16), History>,
}

impl TopState {
    pub(super) const fn new() -> Self {
        Self {
            status: None,
            away: None,
            sort: Sort::Traffic,
            filter: String::new(),
            is_typing: false,
            inside: None,
            detail: None,
            news: VecDeque::new(),
            selected: None,
            routers: BTreeMap::new(),
            rules: BTreeMap::new(),
        }
    }

    /// Takes over a new sample.
    pub(super) fn take(&mut self, sample: Sample, now: Instant) {
        self.away = None;
        self.status = Some(sample.status);
        let mut before = std::mem::take(&mut self.routers);
        for router in sample.routers {
            let known = before.remove(&router.id).map(|(_, history)| history);
            let history = History::continued(known, router.sums, now);
            self.routers.insert(router.id, (router, history));
        }
        let mut before = std::mem::take(&mut self.rules);
        let detail = sample.detail.iter();
        for RuleTraffic { sums, rule } in detail.flat_map(|detail| &detail.conntrack_helpers) {
            if rule.status == "shadowed" {
                continue;
            }
            let key = (rule.protocol.to_string(), rule.port);
            let history = History::continued(before.remove(&key), *sums, now);
            self.rules.insert(key, history);
        }
        self.detail = sample.detail;
        self.news
            .extend(sample.events.iter().filter_map(events::news));
        let surplus = self.news.len().saturating_sub(NEWS);
        self.news.drain(..surplus);
    }

    /// Returns the routers that match the filter, in the sort order.
    pub(super) fn shown(&self) -> Vec<&(RouterTraffic, History)> {
        let matches = |id: &RouterId| id.to_string().contains(self.filter.trim());
        let mut shown: Vec<_> = self.routers.iter().filter(|(id, _)| matches(id)).collect();
        // They are in the order of their ids before, and keep it where they are equal.
        match self.sort {
            Sort::Traffic => shown.sort_by(|(_, (_, one)), (_, (_, other))| {
                other.packets().total_cmp(&one.packets())
            }),
            Sort::Lacking => shown.sort_by_key(|(_, (router, _))| Reverse(router.sums.lacking)),
            Sort::Rules => shown.sort_by_key(|(_, (router, _))| Reverse(router.rules)),
            Sort::Router => {}
        }
        shown.into_iter().map(|(_, both)| both).collect()
    }

    /// Returns the index of the selected router; that of the first one if none is
    /// selected, or it is gone.
    pub(super) fn selected(&self, shown: &[&(RouterTraffic, History)]) -> usize {
        let place = shown
            .iter()
            .position(|(router, _)| Some(router.id) == self.selected);
        place.unwrap_or(0)
    }

    /// Returns the history of a rule of the opened router.
    pub(super) fn rule(&self, protocol: &str, port: u16) -> Option<&History> {
        self.rules.get(&(protocol.to_owned(), port))
    }

    /// Handles a key press.
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => Wish::Quit,
            _ if self.is_typing => self.type_in(key.code),
            KeyCode::Char('q') => Wish::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                if self.inside.take().is_none() {
                    self.filter.clear();
                }
                self.leave();
                Wish::Nothing
            }
            KeyCode::Char('/') if self.inside.is_none() => {
                self.is_typing = true;
                Wish::Nothing
            }
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                Wish::Nothing
            }
            KeyCode::Char('r') => Wish::Sample,
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::PageDown => self.select(10),
            KeyCode::PageUp => self.select(-10),
            KeyCode::Enter | KeyCode::Right if self.inside.is_none() => {
                let shown = self.shown();
                let selected = shown.get(self.selected(&shown));
                let router = selected.map(|(router, _)| router.id);
                self.inside = router;
                self.selected = router.or(self.selected);
                self.leave();
                Wish::Sample
            }
            _ => Wish::Nothing,
        }
    }

    /// Clears the details of the router that was opened before.
    fn leave(&mut self) {
        self.detail = None;
        self.rules.clear();
    }

    fn type_in(&mut self, key: KeyCode) -> Wish {
        /// The length limit of the filter, which is that of a router's id.
        const LONGEST: usize = 36;
        match key {
            KeyCode::Char(letter) if self.filter.len() < LONGEST && letter.is_ascii_graphic() => {
                self.filter.push(letter.to_ascii_lowercase());
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn select(&mut self, by: isize) -> Wish {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let place = self.selected(&shown).saturating_add_signed(by).min(last);
        self.selected = shown.get(place).map(|(router, _)| router.id);
        Wish::Nothing
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::TrafficSums;

    fn status() -> AgentStatus {
        let counts = r#""rules": {"total":0,"active":0,"pending":0,"shadowed":0,"failed":0},
                        "routers": {"total":0,"active":0,"pending":0,"failed":0}"#;
        let text = format!(
            r#"{{"version":"1","agent_id":"a","pid":1,"uptime_seconds":1,{counts},"troubles":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    pub(in crate::cli::top) fn router(
        first: char,
        rules: usize,
        packets: u64,
        lacking: u64,
    ) -> RouterTraffic {
        RouterTraffic {
            id: format!("{first}ab1c2d3-0a1b-4c2d-8e3f-0123456789ab")
                .parse()
                .unwrap(),
            status: "ACTIVE".into(),
            rules,
            degraded: 0,
            sums: TrafficSums {
                packets: Some(packets),
                bytes: Some(0),
                lacking,
                ..TrafficSums::default()
            },
        }
    }

    pub(in crate::cli::top) fn sample(routers: &[RouterTraffic]) -> Sample {
        Sample {
            status: status(),
            routers: routers.to_vec(),
            events: Vec::new(),
            detail: None,
        }
    }

    fn order(state: &TopState) -> String {
        let first = |(router, _): &&(RouterTraffic, History)| router.id.to_string().remove(0);
        state.shown().iter().map(first).collect()
    }

    /// Presses these keys: `v` is down, `^` up, `<` escape, `>` enter, `#` backspace, and
    /// `0` page up; all others are letters.
    fn press(state: &mut TopState, keys: &str) -> Wish {
        let press = |key: char| {
            let code = match key {
                'v' => KeyCode::Down,
                '^' => KeyCode::Up,
                '<' => KeyCode::Esc,
                '>' => KeyCode::Enter,
                '#' => KeyCode::Backspace,
                '0' => KeyCode::PageUp,
                letter => KeyCode::Char(letter),
            };
            state.key(KeyEvent::new(code, KeyModifiers::NONE))
        };
        keys.chars().map(press).last().unwrap()
    }

    fn filled() -> TopState {
        let mut state = TopState::new();
        let begun = Instant::now();
        for (seconds, a, c) in [(0, 0, 5), (1, 5, 9)] {
            let routers = [
                router('a', 1, a, 2),
                router('b', 3, 5, 0),
                router('c', 2, c, 1),
            ];
            state.take(sample(&routers), begun + Duration::from_secs(seconds));
        }
        state
    }

    #[test]
    fn routers_come_in_the_order_that_is_asked_for() {
        let mut state = filled();
        assert_eq!(order(&state), "acb");
        for expected in ["acb", "bca", "abc", "acb"] {
            press(&mut state, "s");
            assert_eq!(order(&state), expected, "by {}", state.sort.name());
        }
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let mut state = filled();
        assert_eq!(press(&mut state, "/Bq"), Wish::Nothing);
        assert_eq!((&*state.filter, &*order(&state)), ("bq", ""));
        press(&mut state, "#ab>");
        assert_eq!((&*state.filter, &*order(&state)), ("bab", "b"));
        assert!(!state.is_typing);
        press(&mut state, "<");
        assert_eq!(order(&state), "acb");
        assert_eq!(press(&mut state, "q"), Wish::Quit);
    }

    #[test]
    fn a_router_is_looked_into_and_left_and_stays_selected() {
        let mut state = filled();
        press(&mut state, "vvv");
        assert_eq!(state.selected(&state.shown()), 2);
        assert_eq!(press(&mut state, "^>"), Wish::Sample);
        let inside = state.inside.unwrap().to_string();
        assert!(inside.starts_with('c'), "{inside}");
        // Wherever it goes in the list.
        press(&mut state, "ss<");
        assert_eq!(state.inside, None);
        assert_eq!(order(&state), "bca");
        assert_eq!(state.selected(&state.shown()), 1);
        let later = Instant::now();
        state.take(sample(&[router('b', 1, 0, 0)]), later);
        assert_eq!(state.selected(&state.shown()), 0);
        state.take(sample(&[]), later);
        press(&mut state, "v>0");
        assert_eq!(state.inside, None);
    }
}
