//! Circles in what imports what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who imports whom, and in which line first.
pub(super) type ImportEdges = BTreeMap<(String, String), usize>;

/// What each file leads to in one step.
type NextFiles<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The groups of files of which each leads to each other one.
pub(super) fn circles(edges: &ImportEdges) -> Vec<BTreeSet<String>> {
    let next = next_files(edges.keys().map(|(from, to)| (from, to)));
    let reached: BTreeMap<&str, BTreeSet<&str>> = next
        .keys()
        .map(|file| (*file, reached_from(&next, file)))
        .collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, others) in &reached {
        if !others.contains(file) || found.iter().any(|circle| circle.contains(*file)) {
            continue;
        }
        let leads_back =
            |other: &&&str| reached.get(**other).is_some_and(|back| back.contains(file));
        let members = others.iter().filter(leads_back);
        found.push(members.map(|&member| member.to_owned()).collect());
    }
    found
}

/// One way around a circle, the shortest, with the line of each import.
pub(super) fn tell(edges: &ImportEdges, circle: &BTreeSet<String>) -> String {
    let Some(start) = circle.first() else {
        return String::new();
    };
    let mut ways = VecDeque::from([(start, String::new())]);
    let mut seen = BTreeSet::new();
    while let Some((from, way)) = ways.pop_front() {
        for ((importer, imported), line) in edges {
            if importer != from || !circle.contains(imported) {
                continue;
            }
            let way = format!("{way}{importer}:{line} -> ");
            if imported == start {
                return way + start;
            }
            if seen.insert(imported) {
                ways.push_back((imported, way));
            }
        }
    }
    String::new()
}

fn next_files<'a>(edges: impl Iterator<Item = (&'a String, &'a String)>) -> NextFiles<'a> {
    let mut next = NextFiles::new();
    for (from, to) in edges {
        next.entry(from).or_default().push(to);
    }
    next
}

/// What a file leads to, in one step or more.
fn reached_from<'a>(next: &NextFiles<'a>, file: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![file];
    while let Some(from) = left.pop() {
        for &to in next.get(from).into_iter().flatten() {
            if reached.insert(to) {
                left.push(to);
            }
        }
    }
    reached
}
