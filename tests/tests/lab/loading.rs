//! The moment in which the kernel takes a program: interrupted, and refused.

use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use conntrack_agent::kernel::{Build, Pins};
use conntrack_ebpf::abi;
use conntrack_tests::agent::{Agent, Config, run_release_to_exit};
use conntrack_tests::durable::BareRouter;
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::release::Release;
use conntrack_tests::snapshot::{Snapshot, assert_same, ingress_programs};
use conntrack_tests::wait;
use rustix::process::Signal;

/// How long the agent is interrupted: less than it goes on trying, which is its
/// 20 pauses of 20 ms.
const STORM: Duration = Duration::from_millis(250);
/// Between two interruptions: far less than a load takes, which is 5 ms.
const LULL: Duration = Duration::from_micros(500);
/// As many chances for an interruption to hit.
const ROUTERS: usize = 8;

fn rules(routers: &[BareRouter]) -> String {
    let rules = routers
        .iter()
        .map(|router| router.rules_file(&[Rule::ftp(21)]));
    rules.collect()
}

/// The verifier stops where the thread has a signal to see to (EAGAIN), and that
/// is no refusal. A stopped process is one that every thread must see to.
#[test]
fn a_start_that_is_interrupted_all_the_time_loads_all_the_same() {
    let lab = Lab::new();
    let routers: Vec<_> = (0..ROUTERS).map(|_| BareRouter::new(&lab)).collect();
    let config = Config::of(&lab).with("log", "{ level = \"debug\" }");
    let mut agent = Agent::spawn(&lab, &config, Some(&rules(&routers)), &[]);
    let pins = Pins::new(lab.dir().agent_bpffs_dir());
    let folders: Vec<_> = routers
        .iter()
        .map(|router| pins.instance(router.id()))
        .collect();
    // An instance's folder comes just before its programs.
    wait::until(wait::patience(), || {
        folders.iter().any(|folder| folder.exists()).then_some(())
    })
    .expect("a load begins");
    let begun = Instant::now();
    // On a busy machine the agent may not have run at all in this time.
    let interrupted = "a program's load was interrupted";
    let is_enough = |agent: &Agent| {
        begun.elapsed() > STORM
            && (agent.log_count(interrupted) > 0 || begun.elapsed() > wait::patience())
    };
    while !is_enough(&agent) {
        agent.signal(Signal::STOP);
        agent.signal(Signal::CONT);
        thread::sleep(LULL);
    }
    let agent = agent.ready().expect("the agent, ready");
    for router in &routers {
        assert_eq!(ingress_programs(router.netns(), "qr-1").len(), 1);
    }
    let said = |words: &str| -> Vec<String> {
        let lines = agent.lines().into_iter();
        lines.filter(|line| line.contains(words)).collect()
    };
    assert_eq!(said("refused"), [""; 0]);
    assert!(agent.log_count(interrupted) > 0, "no load was interrupted");
}

/// Why the verifier took a program not is said in its own words.
#[test]
fn a_program_that_is_refused_is_refused_with_the_reason() {
    /// `call` of helper 1, `bpf_map_lookup_elem` (include/uapi/linux/bpf.h).
    const LOOKUP: [u8; 8] = [0x85, 0, 0, 0, 1, 0, 0, 0];
    /// Of a helper that there will hardly be.
    const NONSENSE: [u8; 8] = [0x85, 0, 0, 0, 0, 0, 0, 0x40];
    let mut object = Build::built_in().object().to_vec();
    let call = object.windows(8).position(|bytes| bytes == LOOKUP);
    let call = call.expect("a look-up in the classifier");
    object
        .get_mut(call..call + 8)
        .expect("the call")
        .copy_from_slice(&NONSENSE);

    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let program = env!("CARGO_BIN_EXE_another_release");
    let release = Release::of_object(&lab, program, abi::VERSION, &object);
    let namespaces = [router.netns()];
    let before = Snapshot::take(&lab, &namespaces);
    let exit = run_release_to_exit(&lab, Some(&rules(slice::from_ref(&router))), &release);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("invalid func unknown#"), "{exit:?}");
    assert_same(&before, &Snapshot::take(&lab, &namespaces));
}
