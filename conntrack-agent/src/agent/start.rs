//! Starts the agent: opens, creates or rebuilds the store, and applies the rules file.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
};

use tracing::warn;

use super::{Agent, AgentError, Rebuild, View, policy, read_rules};
use crate::{
    audit::Auditor,
    config::Config,
    engine::{Entry, Mapping, Policy},
    heartbeat::Heartbeat,
    host_state::{Bpffs, HostState},
    kernel::{Binding, Build, Nft, Watch},
    model::{HelperRule, Origin, RuleId},
    reconcile::{Host, Kernel as _, Reconciler},
    sources::RuleSet,
    store::{self, Store, StoreError},
};

impl Agent {
    /// Starts with the mapping that the store holds, and applies the rules file to it.
    /// Once `goes_on` returns `false`, the routers that were not reconciled yet are left
    /// as they are.
    pub(crate) fn start(
        build: &Build,
        config: &Config,
        footprint: &mut HostState,
        auditor: &Arc<Auditor>,
        rules: Option<&Path>,
        rebuild: Option<Rebuild>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Self, AgentError> {
        let id = footprint.agent();
        let binding = Binding::probe(Nft::new(&config.nft), id, config.mark_bits)?;
        let policy = policy(config, binding.helpers().to_vec());
        let wanted = read_rules(rules, &policy)?;
        let mut host = Host::new(build.clone(), config, id, binding)?;
        let heartbeat = Heartbeat::default();
        host.beat_to(heartbeat.clone());
        let from = match rebuild {
            None => None,
            Some(Rebuild::Pins) => Some(Self::mapping_in_force(&host)?),
            // The mapping is complete before the store is created: an empty store, or an
            // incomplete one if the agent dies now, would take all rules away.
            Some(Rebuild::Rules) => {
                let wanted = wanted.as_ref().ok_or(AgentError::NoRulesFile)?;
                Some(Self::mapping_of(wanted, &policy)?)
            }
        };
        let (store, mapping) = Self::open_store(config, footprint, &host, from)?;
        // Watched before anything is read, so that no change is missed in between.
        let mut routers = mapping.routers();
        routers.extend(host.routers()?);
        let watch = Watch::start(host.places(), Arc::clone(host.pinned_links()), routers)?;
        let mut agent = Self {
            host,
            policy,
            mapping,
            store,
            reconciler: Reconciler::default(),
            view: Arc::new(View::default()),
            auditor: Arc::clone(auditor),
            metrics: Arc::default(),
            event_log: Arc::default(),
            rules: rules.map(Path::to_owned),
            full_pass: config.full_pass(),
            bpffs: Bpffs::new(config),
            watch,
            relinking: VecDeque::new(),
            relinked: BTreeSet::new(),
            heartbeat,
        };
        let summary = agent.take(wanted.as_ref(), goes_on)?;
        agent.relinking = agent.host.end_of_start()?.into_iter().collect();
        agent.tell(agent.view.begin(&agent.mapping, &agent.reconciler));
        if goes_on() {
            agent.report("ready", summary);
        }
        Ok(agent)
    }

    /// Opens the existing store, creates one from `rebuild` in place of a lost one, or
    /// creates the first one.
    fn open_store(
        config: &Config,
        footprint: &mut HostState,
        host: &Host,
        rebuild: Option<Mapping>,
    ) -> Result<(Store, Mapping), AgentError> {
        let folder = &config.state_dir;
        let make = |mapping: Mapping| -> Result<_, AgentError> {
            Ok((Store::create(folder, &mapping)?, mapping))
        };
        let mut is_new = true;
        let opened = match (Store::exists(folder), rebuild) {
            (true, None) => {
                is_new = false;
                Store::open(folder)?
            }
            (true, Some(mapping)) => match Store::open(folder) {
                Ok(_) => return Err(AgentError::NothingToRebuild(folder.join(store::NAME))),
                Err(error @ StoreError::Damaged { .. }) => {
                    warn!(%error, "rebuilding");
                    make(mapping)?
                }
                Err(error) => return Err(error.into()),
            },
            (false, Some(mapping)) => make(mapping)?,
            (false, None) if footprint.has_store() || !host.rules_in_force()?.is_empty() => {
                Store::open(folder)?
            }
            (false, None) => make(Mapping::default())?,
        };
        footprint.note_store(is_new)?;
        Ok(opened)
    }

    /// The rules that are in force become the API's, because nothing says whose
    /// they were.
    fn mapping_in_force(host: &Host) -> Result<Mapping, AgentError> {
        let entries = (0..)
            .zip(host.rules_in_force()?)
            .map(|(age, target)| Entry {
                rule: HelperRule {
                    id: RuleId::random(),
                    target,
                    origin: Origin::Api,
                },
                age,
            });
        Mapping::from_entries(entries).map_err(AgentError::Inconsistent)
    }

    fn mapping_of(wanted: &RuleSet, policy: &Policy) -> Result<Mapping, AgentError> {
        let mut mapping = Mapping::default();
        let batch = wanted.operations(&mapping, Origin::File, RuleId::random);
        let change = mapping.decide(policy, Origin::File, &batch);
        mapping.commit(&change.map_err(AgentError::Refused)?);
        Ok(mapping)
    }
}
