use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use proptest::prelude::*;

use super::*;

const FIRST: &str = "0123456789abcdef";
const SECOND: &str = "0123456789abcdef:#0!~";

fn name(text: &str) -> TokenName {
    TokenName::new(text).unwrap()
}

fn two() -> Tokens {
    let text = format!("# comment: {FIRST}\n\nci:{FIRST}\nops_2-b:{SECOND}\n");
    parse(&text).unwrap()
}

#[test]
fn each_token_is_known_by_its_name() {
    let tokens = two();
    assert_eq!(tokens.name_of(FIRST.as_bytes()), Some(&name("ci")));
    assert_eq!(tokens.name_of(SECOND.as_bytes()), Some(&name("ops_2-b")));
    assert!(tokens.has(&name("ci")) && !tokens.has(&name("cd")));
}

#[test]
fn cwe_798_nothing_but_a_whole_token_is_one() {
    let tokens = two();
    let mut near = vec![
        Vec::new(),
        b"ci".to_vec(),
        format!("ci:{FIRST}").into_bytes(),
        FIRST.to_uppercase().into_bytes(),
        vec![0; LONGEST],
        vec![b'0'; 100_000],
    ];
    for token in [FIRST, SECOND] {
        let token = token.as_bytes();
        near.push(token[..token.len() - 1].to_vec());
        near.push(token[1..].to_vec());
        // Zero bytes at its end make another one.
        let mut longer = token.to_vec();
        longer.resize(token.len() + 1, 0);
        near.push(longer.clone());
        longer.resize(LONGEST, 0);
        near.push(longer.clone());
        longer.resize(LONGEST + 1, 0);
        near.push(longer);
        for at in 0..token.len() {
            let mut other = token.to_vec();
            other[at] ^= 1;
            near.push(other);
        }
    }
    for presented in near {
        assert_eq!(tokens.name_of(&presented), None, "{presented:?}");
    }
}

#[test]
fn the_shortest_and_the_longest_token_and_name_are_taken_and_no_others() {
    let line = |name: usize, token: usize| {
        let (name, token) = ("n".repeat(name), "t".repeat(token));
        parse(&format!("{name}:{token}")).map(|tokens| {
            assert_eq!(tokens.name_of(token.as_bytes()), Some(&self::name(&name)));
        })
    };
    for (name, token) in [(1, SHORTEST), (32, SHORTEST), (1, LONGEST)] {
        assert_eq!(line(name, token), Ok(()));
    }
    for (name, token) in [
        (0, SHORTEST),
        (33, SHORTEST),
        (1, 0),
        (1, SHORTEST - 1),
        (1, LONGEST + 1),
    ] {
        assert!(line(name, token).is_err(), "{name} {token}");
    }
}

#[test]
fn a_wrong_line_is_named_and_never_repeated() {
    const GOOD: &str = "ci:a-good-token-of-the-file";
    for (line, part) in [
        ("zzzz-secret-zzzz-secret", "no colon"),
        ("Zzzz-secret:zzzz-secret-zzzz-secret", "1 to 32"),
        (" zzzz-secret:zzzz-secret-zzzz-secret", "1 to 32"),
        (":zzzz-secret-zzzz-secret", "1 to 32"),
        ("zzzz: zzzz-secret-zzzz-secret", "printable"),
        ("zzzz:zzzz-secret-zzzz-secret ", "printable"),
        ("zzzz:zzzz-secret\u{e9}-zzzz-secret", "printable"),
        ("zzzz:zzzz-secret\0-zzzz-secret", "printable"),
        ("zzzz:zzzz-secret", "11 characters; 16 to 256"),
        ("zzzz:", "0 characters"),
        ("ci:zzzz-secret-zzzz-secret", "name is already at line 2"),
        (
            "zzzz:a-good-token-of-the-file",
            "token is already at line 2",
        ),
    ] {
        let faults = parse(&format!("\n{GOOD}\n# zzzz-secret\n{line}\n")).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        let fault = &faults[0];
        assert!(
            fault.starts_with("line 4: ") && fault.contains(part),
            "{fault}"
        );
        assert!(
            !fault.contains("zzzz") && !fault.contains("good"),
            "{fault}"
        );
    }
    // With another line in its place, nothing is wrong.
    assert!(parse(&format!("\n{GOOD}\n# zzzz-secret\ncd:{FIRST}\n")).is_ok());
}

#[test]
fn every_wrong_line_is_named() {
    let faults = parse(&format!("a\nb\nci:{FIRST}\nci:{FIRST}\n")).unwrap_err();
    let lines: Vec<_> = faults.iter().map(|fault| &fault[..7]).collect();
    assert_eq!(lines, ["line 1:", "line 2:", "line 4:", "line 4:"]);
    let many = |number: usize| {
        let line = |place| format!("{place}:{place:016}\n");
        parse(&(0..number).map(line).collect::<String>())
    };
    assert!(many(256).is_ok());
    assert!(many(257).unwrap_err()[0].contains("257 tokens; 1 to 256"));
    for empty in ["", "\n\n", "# a\n#b:c\n"] {
        assert!(parse(empty).unwrap_err()[0].contains("no token"));
    }
}

#[test]
fn debug_shows_names_alone() {
    assert_eq!(format!("{:?}", two()), "{\"ci\", \"ops_2-b\"}");
}

#[test]
fn cwe_798_a_file_that_others_have_access_to_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tokens");
    fs::write(&path, format!("ci:{FIRST}\n")).unwrap();
    for (mode, good) in [
        (0o600, true),
        (0o400, true),
        (0o700, true),
        (0o640, false),
        (0o620, false),
        (0o610, false),
        (0o604, false),
        (0o602, false),
        (0o601, false),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match read(&path) {
            Ok(tokens) => {
                assert!(good, "{mode:o}");
                assert_eq!(tokens.name_of(FIRST.as_bytes()), Some(&name("ci")));
            }
            Err(error) => {
                assert!(
                    !good && matches!(error, TokensError::Exposed { .. }),
                    "{error}"
                );
                let said = error.to_string();
                for part in [&format!("{mode:04o}"), "0600 is wanted", "tokens"] {
                    assert!(said.contains(part), "{said} lacks {part}");
                }
                assert!(!said.contains(FIRST), "{said}");
            }
        }
    }
}

#[test]
fn cwe_798_a_file_of_another_user_is_refused() {
    assert_eq!(exposed(0, 0o100_600, 0), None);
    assert_eq!(exposed(0, 0o100_600, 7), None);
    assert_eq!(exposed(7, 0o100_600, 7), None);
    let said = exposed(8, 0o100_600, 7).unwrap();
    assert_eq!(
        said,
        "its owner is user 8; root is wanted, or the agent's user, 7"
    );
    let said = exposed(8, 0o100_600, 0).unwrap();
    assert_eq!(said, "its owner is user 8; root is wanted");
}

#[test]
fn what_is_no_readable_regular_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let said = |path: &Path| read(path).unwrap_err().to_string();
    assert!(said(root.path()).contains("regular file"));
    assert!(said(Path::new("/dev/zero")).contains("regular file"));
    assert!(said(&root.path().join("none")).contains("cannot be read"));
    let path = root.path().join("tokens");
    fs::write(&path, [b'c', b'i', b':', 0xff]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(said(&path).contains("UTF-8"));
    fs::write(&path, "#".repeat(70_000)).unwrap();
    assert!(said(&path).contains("larger than 65536 bytes"));
    fs::write(&path, "ci:zzzz").unwrap();
    assert!(said(&path).contains("line 1: the token has 4 characters"));
    // A link is as good as the file that it leads to.
    let link = root.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(said(&link).contains("line 1"));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(said(&link).contains("0644"));
}

proptest! {
    #[test]
    fn any_tokens_are_told_apart(
        given in prop::collection::btree_map(
            "[a-z0-9_-]{1,32}", "[!-~]{16,64}", 1..8,
        ),
        other in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let distinct: BTreeSet<_> = given.values().collect();
        prop_assume!(distinct.len() == given.len());
        let lines: Vec<_> = given.iter().map(|(name, token)| format!("{name}:{token}")).collect();
        let tokens = parse(&lines.join("\n")).unwrap();
        for (name, token) in &given {
            prop_assert_eq!(tokens.name_of(token.as_bytes()), Some(&self::name(name)));
        }
        if !given.values().any(|token| token.as_bytes() == other) {
            prop_assert_eq!(tokens.name_of(&other), None);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\PC|[a-z#:\n]){0,200}") {
        let _ = parse(&text);
    }
}
