//! The `doctor` command: checks the kernel and the configuration, and reports what is
//! wrong and what would help.
//!
//! It needs no running agent and changes nothing: what has to be tried is tried in a
//! temporary namespace, as a start does. What can't be asked is `unknown`, never `ok`,
//! and doesn't keep the other checks from running.

mod carrier;
mod finding;
mod helpers;
mod limits;
mod machine;
mod owner;
mod parameters;
mod programs;
mod reverse_path;
mod routers;
mod rules;
mod sys_paths;

use std::io;

use crate::{
    config::Config,
    input::sentence,
    kernel::{self, AgentId, Binding, Hooks, Netns, Nft},
};
pub use finding::{Finding, Verdict};
use sys_paths::SysPaths;

/// Runs all checks and returns their findings.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let paths = SysPaths::default();
    let mut findings = Vec::new();
    let probe = look_at_the_machine(config, &paths, &mut findings);
    look_at_routers(config, &paths, &probe, &mut findings);
    by_check(&mut findings);
    findings
}

/// The means to check routers, as far as the host has them.
struct HostProbe {
    /// Whether the process has every capability. Without them, what the kernel refuses
    /// says nothing.
    may_ask: bool,
    /// The agent whose bindings count as the agent's own.
    owner: Option<AgentId>,
    hooks: Option<Hooks>,
    binding: Option<Binding>,
}

fn look_at_the_machine(
    config: &Config,
    paths: &SysPaths,
    findings: &mut Vec<Finding>,
) -> HostProbe {
    findings.extend([machine::kernel(paths), machine::compiler(paths)]);
    let missing = kernel::missing();
    let may_ask = missing.as_ref().is_ok_and(Vec::is_empty);
    findings.extend(machine::capabilities(missing));
    findings.push(machine::bpffs(config));
    let (owner, finding) = owner::find(config);
    findings.push(finding);
    // Without an owner, a random id: no object on the host carries it.
    let agent = owner.unwrap_or_else(AgentId::random);
    let hooks = Hooks::probe(agent);
    findings.push(machine::attach(config.attach, hooks.as_ref(), may_ask));
    let nft = Nft::new(&config.nft);
    findings.push(helpers::nft(&nft));
    let probed = Binding::probe(nft, agent, config.mark_bits);
    let allowed = &config.allowed_helpers;
    findings.push(helpers::present(probed.as_ref(), allowed, may_ask));
    let binding = probed.ok();
    // After the probe, which makes the kernel load the helpers' modules.
    findings.extend(parameters::check(paths, allowed));
    findings.extend(carrier::obstacle(config.carrier, binding.as_ref()));
    let hooks = hooks.ok();
    findings.extend(programs::obstacle(hooks.as_ref()));
    HostProbe {
        may_ask,
        owner,
        hooks,
        binding,
    }
}

/// Checks routers one after the other, so that few namespaces are open at a time.
fn look_at_routers(
    config: &Config,
    paths: &SysPaths,
    probe: &HostProbe,
    findings: &mut Vec<Finding>,
) {
    let (names, unlisted) = routers::names(config);
    findings.extend(unlisted);
    let mut programs = programs::Names::default();
    let (count, mut with_rules) = (names.len(), 0);
    for (id, names) in names {
        let (router, found) = routers::open(config, id, &names, probe.may_ask);
        findings.extend(found);
        with_rules += usize::from(router.has_rules());
        findings.extend(limits::of_rules(config.limits, &router));
        let mut wanted = None;
        if let Some(binding) = &probe.binding {
            let (due, found) = carrier::look(config.carrier, binding, &router);
            findings.extend(found);
            wanted = due;
        }
        let found = rules::check(probe.owner, config.mark_bits.mask(), wanted, &router);
        findings.extend(found);
        if let Some(hooks) = &probe.hooks {
            findings.extend(programs::check(hooks, config, &router, &mut programs));
        }
        findings.extend(helpers::automatic(paths, &router));
        findings.extend(reverse_path::check(paths, &config.interfaces, &router));
        findings.extend(limits::of_the_kernel(paths, &router));
    }
    findings.push(routers::summary(count, with_rules));
    findings.push(limits::of_routers(config.limits, with_rules));
}

/// Groups findings by their check, in the order in which the checks began.
fn by_check(findings: &mut [Finding]) {
    let mut order: Vec<&str> = Vec::new();
    for finding in &*findings {
        if !order.contains(&finding.check) {
            order.push(finding.check);
        }
    }
    findings.sort_by_key(|finding| order.iter().position(|check| *check == finding.check));
}

/// The remedy where no namespace can be created (`copy_net_ns`,
/// `net/core/net_namespace.c`).
const NO_NAMESPACE: &str = "see to it that this command works: unshare --net true; it takes \
    CONFIG_NET_NS in the kernel, and more namespaces in the sysctl user.max_net_namespaces than \
    there are";

/// Runs `read` inside the namespace and returns its result.
fn within<T: Send>(netns: &Netns, read: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let entered = netns.enter(|| Ok(read()));
    entered.unwrap_or_else(|error| Err(io::Error::other(sentence(&error))))
}
