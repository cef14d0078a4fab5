//! Tests of list parameters.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const FIELDS: &[&str] = &["id", "protocol", "port", "helper", "status_reason", "tags"];

fn parse(query: &str) -> Result<ListQuery, QueryError> {
    ListQuery::parse(Some(query), FIELDS)
}

fn item(value: Value) -> Item {
    match value {
        Value::Object(item) => item,
        other => panic!("{other} is no object"),
    }
}

/// Four items, in no order.
fn some() -> Vec<Item> {
    [
        json!({"id": "c", "protocol": "tcp", "port": 21, "status_reason": null, "tags": ["x"]}),
        json!({"id": "a", "protocol": "udp", "port": 69, "status_reason": "why", "tags": []}),
        json!({"id": "d", "protocol": "tcp", "port": 2121, "status_reason": null, "tags": ["y", "x"]}),
        json!({"id": "b", "protocol": "udp", "port": 5060, "status_reason": "é &=", "tags": [["x"]]}),
    ]
    .map(item)
    .to_vec()
}

fn ids(items: &[Item]) -> String {
    items
        .iter()
        .filter_map(|item| item["id"].as_str())
        .collect()
}

fn shown(query: &str) -> String {
    ids(&parse(query).unwrap().apply(some()).unwrap())
}

fn said(query: &str) -> String {
    let refused = parse(query).and_then(|list| list.apply(some()));
    refused.unwrap_err().to_string()
}

#[test]
fn without_parameters_all_is_shown_by_id() {
    for query in ["", "&", "&&"] {
        assert_eq!(shown(query), "abcd");
    }
    let none = ListQuery::parse(None, FIELDS).unwrap();
    assert_eq!(ids(&none.apply(some()).unwrap()), "abcd");
    assert_eq!(none.apply(Vec::new()), Ok(Vec::new()));
    assert_eq!(none, parse("").unwrap());
}

#[test]
fn a_filter_shows_what_has_one_of_its_values() {
    for (query, expected) in [
        ("protocol=tcp", "cd"),
        ("protocol=tcp&protocol=udp", "abcd"),
        ("protocol=tcp&port=21", "c"),
        ("protocol=tcp&port=69", ""),
        ("port=69&port=21&port=7", "ac"),
        ("port=2", ""),
        ("port=021", ""),
        ("id=a&id=b", "ab"),
        ("id=A", ""),
        ("protocol=", ""),
        ("status_reason=", "cd"),
        ("status_reason", "cd"),
        ("status_reason=null", ""),
        ("status_reason=%C3%A9+%26%3d", "b"),
        ("helper=ftp", ""),
        ("helper=", "abcd"),
        ("tags=x", "cd"),
        ("tags=y", "d"),
        ("tags=", ""),
    ] {
        assert_eq!(shown(query), expected, "{query}");
    }
}

#[test]
fn items_are_sorted_by_the_keys_and_then_by_id() {
    for (query, expected) in [
        ("sort_key=port", "cadb"),
        ("sort_key=port&sort_dir=asc", "cadb"),
        ("sort_key=port&sort_dir=desc", "bdac"),
        ("sort_key=protocol", "cdab"),
        ("sort_key=protocol&sort_dir=desc", "abcd"),
        (
            "sort_key=protocol&sort_key=port&sort_dir=desc&sort_dir=desc",
            "badc",
        ),
        ("sort_dir=desc&sort_key=id", "dcba"),
        ("sort_key=helper", "abcd"),
        ("sort_key=status_reason", "cdab"),
    ] {
        assert_eq!(shown(query), expected, "{query}");
    }
}

#[test]
fn a_page_begins_behind_the_marker_and_has_at_most_the_limit() {
    for (query, expected) in [
        ("limit=1", "a"),
        ("limit=4", "abcd"),
        ("limit=10000", "abcd"),
        ("marker=b", "cd"),
        ("limit=1&marker=b", "c"),
        ("marker=d", ""),
        ("sort_key=port&limit=2", "ca"),
        ("sort_key=port&limit=2&marker=a", "db"),
        ("page_reverse=false&limit=2", "ab"),
        ("page_reverse=true", "abcd"),
        ("page_reverse=True&limit=2", "cd"),
        ("page_reverse=true&limit=2&marker=d", "bc"),
        ("page_reverse=true&limit=2&marker=b", "a"),
        ("page_reverse=true&marker=a", ""),
        // The marker needn't be shown itself.
        ("protocol=udp&marker=a", "b"),
        ("protocol=tcp&marker=a", "cd"),
        ("protocol=tcp&marker=d", ""),
    ] {
        assert_eq!(shown(query), expected, "{query}");
    }
}

#[test]
fn only_the_fields_that_are_named_are_shown() {
    let one = |query: &str| parse(query).unwrap().apply(some()).unwrap().remove(0);
    assert_eq!(Value::from(one("fields=port")), json!({"port": 69}));
    assert_eq!(
        Value::from(one(
            "fields=port&fields=id&fields=port&limit=1&sort_key=protocol"
        )),
        json!({"id": "c", "port": 21})
    );
    // A field that the item lacks is not made up.
    assert_eq!(Value::from(one("fields=helper")), json!({}));
    assert_eq!(one(""), some()[1]);
}

#[test]
fn what_means_nothing_is_refused_with_what_is_allowed() {
    for (query, parts) in [
        ("prot=tcp", &["\"prot\"", "protocol, port", "sort_key"][..]),
        ("Protocol=tcp", &["\"Protocol\""]),
        ("=tcp", &["\"\"", "protocol, port"]),
        ("dry_run=true", &["\"dry_run\""]),
        ("fields=prot", &["fields names \"prot\"", "id, protocol"]),
        ("fields=", &["fields names \"\""]),
        ("fields=id,port", &["\"id,port\""]),
        (
            "sort_key=color",
            &["sort_key names \"color\"", "id, protocol"],
        ),
        ("sort_key=port&sort_dir=up", &["sort_dir is \"up\"", "desc"]),
        ("sort_key=port&sort_dir=", &["sort_dir is \"\"", "asc"]),
        ("sort_dir=asc", &["0 sort_key and 1 sort_dir"]),
        (
            "sort_key=port&sort_key=id&sort_dir=asc",
            &["2 sort_key and 1 sort_dir"],
        ),
        ("limit=0", &["limit is \"0\"", "1 to 10000"]),
        ("limit=10001", &["\"10001\"", "1 to 10000"]),
        ("limit=-1", &["\"-1\""]),
        ("limit=%2B1", &["\"+1\""]),
        ("limit=1.0", &["\"1.0\""]),
        ("limit=", &["limit is \"\""]),
        ("limit=99999999999999999999999", &["1 to 10000"]),
        ("limit=1&limit=1", &["limit is given more than once"]),
        ("marker=e", &["marker is \"e\"", "no item"]),
        ("marker=", &["marker is \"\""]),
        ("marker=a&marker=a", &["marker is given more than once"]),
        (
            "page_reverse=1",
            &["page_reverse is \"1\"", "true and false"],
        ),
        (
            "page_reverse=true&page_reverse=true",
            &["page_reverse is given more than once"],
        ),
    ] {
        let said = said(query);
        for part in parts {
            assert!(said.contains(part), "{query}: {said} lacks {part}");
        }
    }
}

#[test]
fn what_is_not_encoded_as_a_query_is_refused() {
    for query in [
        "id=%",
        "id=%4",
        "id=%zz",
        "id=%+1",
        "id=a%4",
        "%f=a",
        "id=%ff",
        "%C3=a",
        "id=\u{e9}",
        "id=a b",
        "id=a#b",
        "id=a\nb",
        "id=%EF%BF%BD",
        "id=\0",
    ] {
        assert_eq!(parse(query), Err(QueryError::Encoding), "{query:?}");
    }
    for query in [
        "id=%41",
        "%69d=a",
        "id=%c3%A9",
        "id=%00",
        "id=a?b=/c:@!$'()*,;",
    ] {
        assert!(parse(query).is_ok(), "{query:?}");
    }
}

#[test]
fn cwe_20_length_and_number_are_bounded() {
    let long = |length: usize| format!("id={}", "a".repeat(length - 3));
    assert!(parse(&long(MAX_LENGTH)).is_ok());
    let said_of = |query: &str| parse(query).unwrap_err().to_string();
    assert!(said_of(&long(MAX_LENGTH + 1)).contains("16385 bytes long; at most 16384"));
    let many = |number: usize| vec!["id=a"; number].join("&");
    assert!(parse(&many(MAX_PARAMETERS)).is_ok());
    assert!(said_of(&many(MAX_PARAMETERS + 1)).contains("513 parameters; at most 512"));
    // Nor is much of what was given repeated.
    let echo = said_of(&format!("{}=1", "a".repeat(1000)));
    assert!(echo.contains(&"a".repeat(64)) && !echo.contains(&"a".repeat(65)));
    let echo = said(&format!("marker={}", "a".repeat(1000)));
    assert!(!echo.contains(&"a".repeat(65)));
}

fn any_items() -> impl Strategy<Value = Vec<Item>> {
    let one = (
        prop::sample::select(vec!["tcp", "udp"]),
        prop_oneof![Just(9), Just(10), 1..65536],
        prop::option::of("[ab]"),
    );
    let ids = prop::collection::btree_map("[a-f]{3}", one, 0..30);
    let items = ids.prop_map(|items| {
        let made = items.into_iter().map(|(id, (protocol, port, reason))| {
            item(json!({"id": id, "protocol": protocol, "port": port, "status_reason": reason}))
        });
        made.collect::<Vec<_>>()
    });
    items.prop_shuffle()
}

/// A query that sorts, and maybe filters.
fn any_sorting() -> impl Strategy<Value = String> {
    let keys = prop::collection::vec((prop::sample::select(FIELDS.to_vec()), any::<bool>()), 0..4);
    (keys, any::<bool>()).prop_map(|(keys, filter)| {
        let mut query = String::from(if filter { "protocol=tcp" } else { "" });
        for (key, descending) in keys {
            let direction = if descending { "desc" } else { "asc" };
            write!(query, "&sort_key={key}&sort_dir={direction}").unwrap();
        }
        query
    })
}

/// Page after page, each asked for with the last page's end as the marker.
fn pages(sorting: &str, limit: usize, reverse: bool, items: &[Item]) -> Vec<Vec<Item>> {
    let mut pages: Vec<Vec<Item>> = Vec::new();
    loop {
        let last = pages.last().and_then(|page| {
            let end = if reverse { page.first() } else { page.last() };
            end.and_then(|item| item["id"].as_str())
        });
        let marker = last.map_or_else(String::new, |id| format!("&marker={id}"));
        let query = format!("{sorting}&limit={limit}&page_reverse={reverse}{marker}");
        let page = parse(&query).unwrap().apply(items.to_vec()).unwrap();
        if page.is_empty() {
            return pages;
        }
        pages.push(page);
        // A page that never ends the list would be asked for for ever.
        assert!(pages.len() <= items.len(), "{query}");
    }
}

proptest! {
    #[test]
    fn pages_joined_are_the_whole_list(
        items in any_items(), sorting in any_sorting(), limit in 1usize..12,
    ) {
        let whole = parse(&sorting).unwrap().apply(items.clone()).unwrap();
        let mut expected: Vec<_> = items
            .iter()
            .filter(|item| !sorting.starts_with('p') || item["protocol"] == "tcp")
            .map(|item| item["id"].to_string())
            .collect();
        let mut found: Vec<_> = whole.iter().map(|item| item["id"].to_string()).collect();
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);

        let forward = pages(&sorting, limit, false, &items);
        let (last, full) = forward.split_last().map_or((0, &forward[..]), |(last, full)| (last.len(), full));
        prop_assert!(last <= limit && full.iter().all(|page| page.len() == limit));
        prop_assert_eq!(forward.concat(), whole.clone());

        let mut backward = pages(&sorting, limit, true, &items);
        backward.reverse();
        prop_assert_eq!(backward.concat(), whole);
    }

    /// The order of what comes in is of no consequence, or pages would not fit
    /// each other.
    #[test]
    fn the_order_of_the_items_is_of_no_consequence(
        items in any_items(), sorting in any_sorting(),
    ) {
        let list = parse(&sorting).unwrap();
        let reversed = items.iter().rev().cloned().collect();
        prop_assert_eq!(list.apply(items), list.apply(reversed));
    }

    /// Against an ordering that knows just two fields.
    #[test]
    fn sorted_is_what_the_keys_say(items in any_items(), descending in any::<bool>()) {
        let direction = if descending { "desc" } else { "asc" };
        let query = format!("sort_key=port&sort_dir={direction}");
        let found = parse(&query).unwrap().apply(items.clone()).unwrap();
        let mut expected = items;
        expected.sort_by_key(|item| {
            let port = item["port"].as_i64().unwrap();
            (if descending { -port } else { port }, item["id"].to_string())
        });
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_query_makes_it_panic(query in "(\\PC|[a-z=&%0-9_]){0,100}") {
        let _ = parse(&query);
    }
}
