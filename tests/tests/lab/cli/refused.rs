//! Commands that are refused: the exit code, and why.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use conntrack_tests::accounts::{SocketGroup, launcher};
use conntrack_tests::agent::{Exit, binary};
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::table::Placeholders;
use uuid::Uuid;

use super::{Fixture, assert_has, json, run};

const WRONG_COMMAND_LINE: i32 = 2;
const NOBODY_THERE: i32 = 69;
const NOT_ALLOWED: i32 = 77;
const WRONG_FILE: i32 = 78;

/// A refusal: its exit code, nothing on stdout, and on stderr who speaks and
/// these words, in one sentence unless it is the parser's, which adds a usage,
/// or lists a file's faults.
#[track_caller]
fn assert_refused(line: &str, said: &Exit, code: i32, words: &[impl ToString]) {
    let end = (said.code, said.stdout.as_str());
    assert_eq!(end, (Some(code), ""), "{line}: {said:?}");
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    assert_has(line, &said.stderr, &words);
    let is_long = code == WRONG_COMMAND_LINE || code == WRONG_FILE;
    let speaks = said.stderr.starts_with("conntrack-agent: ")
        || code == WRONG_COMMAND_LINE && said.stderr.starts_with("error: ");
    assert!(speaks, "{line}: {said:?}");
    let lines = said.stderr.lines().count();
    assert!(is_long || lines == 1, "{line}: {said:?}");
    assert!(said.stderr.ends_with('\n'), "{line}: {said:?}");
}

impl Fixture {
    /// With a rule `$id` for FTP on port 21, another on 22, and `$of_file`, the
    /// one of the file; no rule and no router has the id `$other`.
    fn with_rules() -> Self {
        let mut fixture = Self::new();
        let listed = fixture.does(
            "
            $create tcp --port 21 --helper ftp --id $id
            $create tcp --port 22 --helper ftp
            helper list -o json
            ",
        );
        let listed = json(&listed);
        let mut rules = listed.as_array().expect("rules").iter();
        let of_file = rules.find(|rule| rule["origin"] == "file");
        let of_file = of_file.and_then(|rule| rule["id"].as_str());
        let of_file = of_file.expect("the file's rule");
        fixture.placeholders = fixture.placeholders.with("$of_file", of_file);
        fixture
    }

    /// Each row of a table is refused with this exit code, in both forms of the
    /// data, and nothing of it happens.
    fn refuses(&self, code: i32, table: &str) {
        let before = self.state();
        for row in self.placeholders.rows(table) {
            let (line, words) = (&row[0], &row[1..]);
            let json = (!line.contains("-o ")).then(|| format!("{line} -o json"));
            for line in [line].into_iter().chain(&json) {
                assert_refused(line, &run(self.command(), line), code, words);
            }
            self.state().assert_same(&before, line);
        }
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_2_before_anybody_is_asked() {
    Fixture::with_rules().refuses(
        WRONG_COMMAND_LINE,
        r#"
        $create tcp --port 0 --helper ftp           | --port | 0 | 1 to 65535
        $create tcp --port 65536 --helper ftp       | 65536 | 1 to 65535
        $create tcp --port -1 --helper ftp          | -1 | 1 to 65535
        $create tcp --port ftp --helper ftp         | "ftp" | 1 to 65535
        $create tcp --helper ftp                    | --port
        $create sctp --port 21 --helper ftp         | "sctp" | udp
        $create udp --port 23 --helper ftp          | it is for tcp
        $create tcp --port 70 --helper gopher       | "gopher" | tftp
        $create tcp --port 23 --helper ftp --id x   | --id | UUID
        helper create --router x --protocol tcp --port 23 --helper ftp | --router | UUID
        helper set $id                              | --port
        helper set $id --port 0                     | 1 to 65535
        helper show x                               | UUID
        helper delete                               | <ID>
        helper delete $id $other                    | $other
        router show x                               | UUID
        router clear                                | UUID
        apply                                       | FILE
        helper list -o yaml                         | yaml | json
        helper make                                 | make
        status --colour                             | --colour
        "#,
    );
}

#[test]
fn what_the_agent_refuses_ends_with_1() {
    Fixture::with_rules().refuses(
        1,
        "
        $create tcp --port 21 --helper ftp          | already | $id
        $create tcp --port 23 --helper ftp --id $id | already | $id
        helper set $id --port 22                    | already
        helper set $id --protocol udp               | it is for tcp
        helper set $id --helper tftp                | it is for udp
        helper show $other                          | no rule | $other
        helper set $other --port 1                  | no rule | $other
        helper delete $other                        | no rule | $other
        helper delete $of_file                      | belongs to file
        helper set $of_file --port 70               | belongs to file
        helper list --router $other                 | $other | could not be found
        router show $other                          | $other | could not be found
        ",
    );
}

#[test]
fn a_faulty_file_is_refused_with_78_before_anybody_is_asked() {
    let fixture = Fixture::with_rules();
    let router = &fixture.served.router;
    let good = router.rules_file(&[Rule::ftp(5)]);
    fixture.file("good.toml", &good);
    fixture.file("port.toml", &good.replace("port = 5", "port = 0"));
    fixture.file("gopher.toml", &good.replace("ftp", "gopher"));
    let twice = router.rules_file(&[Rule::ftp(5), Rule::ftp(5)]);
    fixture.file("twice.toml", &twice);
    fixture.file("no.toml", "[[router");
    fixture.refuses(
        WRONG_FILE,
        r#"
        apply $lab/port.toml            | $lab/port.toml | 1 to 65535
        apply $lab/gopher.toml          | $lab/gopher.toml | "gopher"
        apply $lab/twice.toml --dry-run | $lab/twice.toml
        apply $lab/no.toml              | $lab/no.toml
        apply $lab/missing              | $lab/missing | No such file
        apply $lab/run                  | $lab/run
        apply $lab/port.toml --socket $lab/missing | 1 to 65535
        "#,
    );
    // The rule by itself is fine.
    fixture.does("apply $lab/good.toml --dry-run | 1 to add, 2 to remove");
    // And where nobody is, it is the daemon that lacks, not the file.
    fixture.refuses(
        NOBODY_THERE,
        "
        apply $lab/good.toml --socket $lab/missing | cannot be reached | $lab/missing
        status --socket $lab/good.toml             | cannot be reached | $lab/good.toml
        ",
    );
}

/// Every command that asks, of those that read a router, and of the others.
const READS: &str = "
    helper list
    helper list --router $router
    router list
    router show $router
";
const OTHERS: &str = "
    helper create --router $router --protocol tcp --port 21 --helper ftp --id $id
    router clear $router
    apply $lab/none.toml
    apply $lab/none.toml --dry-run
    status
";
const OF_ONE_RULE: &str = "
    helper show $id
    helper set $id --port 21
    helper delete $id
";

#[test]
fn without_the_agent_every_command_that_asks_exits_with_69() {
    let lab = Lab::without_bpffs();
    let socket = lab.dir().socket();
    let path = socket.to_str().expect("text");
    fs::write(lab.dir().path().join("none.toml"), "").expect("a file");
    let placeholders = Placeholders::new()
        .with("$router", &Uuid::new_v4())
        .with("$id", &Uuid::new_v4())
        .with("$lab", &lab.dir().path().display());
    let check = |why: &str| {
        for row in placeholders.rows(&[READS, OTHERS, OF_ONE_RULE].concat()) {
            let mut command = Command::new(binary());
            command.arg("--socket").arg(&socket);
            let said = run(command, &row[0]);
            let words = ["cannot be reached", path, why];
            assert_refused(&row[0], &said, NOBODY_THERE, &words);
        }
    };
    check("No such file");
    // As a killed agent leaves it.
    drop(UnixListener::bind(&socket).expect("a socket"));
    check("Connection refused");
}

#[test]
fn another_user_is_refused_with_77() {
    const READER: u32 = 61_001;
    const STRANGER: u32 = 61_004;
    let SocketGroup { name, gid } = SocketGroup::any();
    let fixture = Fixture::with(|config| {
        let grant = format!("[{{ users = [{READER}], role = \"reader\" }}]");
        config
            .with("api", format!("{{ socket_group = {name:?} }}"))
            .with("grant", grant)
    });
    // Where the agent was built may be nobody else's to read.
    let program = fixture.served.lab.dir().folder("bin");
    let program = program.join("conntrack-agent");
    fs::copy(binary(), &program).expect("a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    fixture.file("none.toml", "");
    let by = |uid: u32, groups: &[u32], line: &str| {
        let launcher = launcher(uid, uid, groups);
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).arg(&program);
        command.arg("--socket").arg(fixture.served.socket());
        run(command, line)
    };
    let lines = |table: &str| fixture.placeholders.rows(table).concat();
    let before = fixture.state();
    for line in lines(&[READS, OTHERS].concat()) {
        let refused = |groups: &[u32], line: &str, code, words: &[&str]| {
            assert_refused(line, &by(STRANGER, groups, line), code, words);
        };
        let closed = ["may not be used", "Permission denied"];
        refused(&[], &line, NOT_ALLOWED, &closed);
        let nobody = format!("no grant names uid {STRANGER}");
        refused(&[gid], &line, NOT_ALLOWED, &[&nobody]);
        // What is wrong with the command line is said to anybody.
        let wrong = format!("{line} --colour");
        refused(&[], &wrong, WRONG_COMMAND_LINE, &["--colour"]);
    }
    for line in lines(OTHERS) {
        let said = by(READER, &[gid], &line);
        assert_refused(&line, &said, NOT_ALLOWED, &["grant 1 (role reader)"]);
    }
    for line in lines(READS) {
        let said = by(READER, &[gid], &line);
        let end = (said.code, said.stderr.as_str());
        assert_eq!(end, (Some(0), ""), "{line}: {said:?}");
        let router = fixture.served.router.id().to_string();
        assert_has(&line, &said.stdout, &[router]);
    }
    fixture.state().assert_same(&before, "what is refused");
}
