//! Answers as the kernel gives them, and damaged ones.

use proptest::prelude::*;

use super::message::*;

const SEQUENCE: u32 = 7;
const NEWSET: u16 = 0x0a09;
const NEWRULE: u16 = 0x0a06;
const NEWELEMENT: u16 = 0x0a0c;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const INTERRUPTED: u16 = 0x10;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn part(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let general = vec![1, 0, 0, 42];
    message(
        kind,
        2,
        &[vec![general], attributes.to_vec()].concat().concat(),
    )
}

fn rule(handle: u8, expressions: &[u8]) -> Vec<u8> {
    let handle = [0, 0, 0, 0, 0, 0, 0, handle];
    let attributes = [
        attribute(1, b"t\0"),
        attribute(3, &handle),
        attribute(6, &handle),
        attribute(0x8004, expressions),
    ];
    part(NEWRULE, &attributes)
}

/// All that is read of a datagram.
fn read(datagram: &[u8], kind: ObjectKind) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for answer in answers(datagram, kind, SEQUENCE) {
        match answer? {
            Reply::Part(part) => {
                part.is_of("t")?;
                if kind == ObjectKind::Element {
                    part.elements()?;
                }
                part.write(&mut out)?;
            }
            Reply::Done => out.extend(b"done"),
            Reply::Interrupted => out.extend(b"interrupted"),
            Reply::Refused(error) => out.extend(error.to_string().bytes()),
        }
    }
    Ok(out)
}

#[test]
fn equal_rules_are_equal_and_others_are_not() {
    let one = read(&rule(1, b"accept"), ObjectKind::Rule).unwrap();
    assert_eq!(one, read(&rule(2, b"accept"), ObjectKind::Rule).unwrap());
    assert_ne!(one, read(&rule(1, b"drop"), ObjectKind::Rule).unwrap());
    // An attribute that nothing is known of is a difference.
    let more = [
        attribute(1, b"t\0"),
        attribute(0x8004, b"accept"),
        attribute(99, b""),
    ];
    assert_ne!(one, read(&part(NEWRULE, &more), ObjectKind::Rule).unwrap());
}

#[test]
fn a_part_is_of_the_table_that_it_names() {
    let datagram = rule(1, b"accept");
    let Some(Ok(Reply::Part(part))) = answers(&datagram, ObjectKind::Rule, SEQUENCE).next() else {
        panic!("a part");
    };
    assert!(part.is_of("t").unwrap());
    assert!(!part.is_of("").unwrap());
    assert!(!part.is_of("table").unwrap());
    assert_eq!(part.generation, [0, 42]);
}

#[test]
fn elements_are_told_apart() {
    let list = [attribute(0x8001, b"one"), attribute(0x8001, b"other")].concat();
    let datagram = part(
        NEWELEMENT,
        &[attribute(1, b"t\0"), attribute(0x8003, &list)],
    );
    let Some(Ok(Reply::Part(part))) = answers(&datagram, ObjectKind::Element, SEQUENCE).next()
    else {
        panic!("a part");
    };
    assert_eq!(part.elements().unwrap(), [&b"one"[..], b"other"]);
}

#[test]
fn the_end_of_an_answer_says_how_it_ended() {
    for (kind, flags, code, expected) in [
        (DONE, 2, 0, "done"),
        (ERROR, 0, 0, "done"),
        (DONE, 2 | INTERRUPTED, 0, "interrupted"),
        (DONE, 2, -2, "No such file or directory (os error 2)"),
        (ERROR, 0, -1, "Operation not permitted (os error 1)"),
    ] {
        let datagram = message(kind, flags, &i32::to_ne_bytes(code));
        let said = read(&datagram, ObjectKind::Rule).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), expected);
    }
    // A code that can't be negated.
    assert!(
        read(
            &message(ERROR, 0, &i32::MIN.to_ne_bytes()),
            ObjectKind::Rule
        )
        .is_ok()
    );
}

#[test]
fn an_answer_to_something_else_is_an_error() {
    let datagram = rule(1, b"accept");
    assert!(read(&datagram, ObjectKind::Rule).is_ok());
    assert!(
        read(&datagram, ObjectKind::Set).is_err(),
        "to another question"
    );
    let other = answers(&datagram, ObjectKind::Rule, SEQUENCE + 1)
        .next()
        .unwrap();
    assert!(other.is_err(), "to an earlier question");
    // Nor is there anything after it.
    let two = [datagram.clone(), datagram].concat();
    assert_eq!(answers(&two, ObjectKind::Set, SEQUENCE).count(), 1);
}

#[test]
fn a_truncated_answer_is_an_error() {
    let first = rule(1, b"accept");
    let whole = [&first[..], &message(DONE, 2, &0_i32.to_ne_bytes())].concat();
    let read_whole = read(&whole, ObjectKind::Rule).unwrap();
    assert!(read_whole.ends_with(b"done"));
    for length in 1..whole.len() {
        let result = read(&whole[..length], ObjectKind::Rule);
        if length == first.len() {
            assert!(!result.unwrap().ends_with(b"done"), "it has not ended");
        } else {
            assert!(result.is_err(), "{length} of {}", whole.len());
        }
    }
}

#[test]
fn a_length_that_lies_is_an_error() {
    let whole = rule(1, b"accept");
    for (at, length) in [
        (0, 0_u16),
        (0, 15),
        (0, 17),
        (0, u16::MAX),
        (20, 0),
        (20, 3),
        (20, 4096),
    ] {
        let mut damaged = whole.clone();
        damaged[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        let result = read(&damaged, ObjectKind::Rule);
        assert!(result.is_err(), "{length} at {at}: {result:?}");
    }
}

#[test]
fn a_question_is_as_the_kernel_wants_it() {
    let question = request(ObjectKind::Element, "t", Some(b"s\0"), SEQUENCE);
    let attributes = [attribute(1, b"t\0"), attribute(2, b"s\0")].concat();
    let expected = message(0x0a0d, 0x301, &[&[1, 0, 0, 0][..], &attributes].concat());
    assert_eq!(question, expected);
    let question = request(ObjectKind::Table, "table", None, SEQUENCE);
    let payload = [&[1, 0, 0, 0][..], &attribute(1, b"table\0")].concat();
    assert_eq!(question, message(0x0a01, 1, &payload), "no dump");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(ObjectKind::Rule), Just(ObjectKind::Element)],
    ) {
        drop(read(&bytes, kind));
    }

    #[test]
    fn nor_does_damage(
        damage in proptest::collection::vec((0_usize..200, any::<u8>()), 1..8),
        set in any::<bool>(),
    ) {
        let kind = if set { NEWSET } else { NEWELEMENT };
        let list = [attribute(0x8001, b"one"), attribute(0x8001, b"other")].concat();
        let one = part(kind, &[attribute(1, b"t\0"), attribute(0x8003, &list)]);
        let mut datagram = [one.clone(), one, message(DONE, 2, &[0; 4])].concat();
        for (at, byte) in damage {
            let at = at % datagram.len();
            datagram[at] = byte;
        }
        drop(read(&datagram, if set { ObjectKind::Set } else { ObjectKind::Element }));
    }
}
