//! Reads all rule counters of a router from its pins.

use std::path::Path;

use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray};
use conntrack_ebpf::abi::{self, COUNTER_GROUP, Counters, Destination, Slot};

use super::{RawCounters, RawGroup, batch};
use crate::kernel::{Error, sys};

/// Returns what each rule of the instance that is pinned in `folder` has matched,
/// over all CPUs. It opens less than [`Instance::open`](super::Instance::open), and
/// looks nothing up twice, because it serves a thousand routers at once. Returns
/// `None` if another instance is just taking its place.
///
/// # Errors
/// [`Error::Map`] if there is no whole instance, or its maps can't be read.
pub fn matched(folder: &Path) -> Result<Option<Vec<(Destination, Counters)>>, Error> {
    let map = |name: &'static str| {
        let map = MapData::from_pin(folder.join(name));
        map.map_err(Error::map("opening", name))
    };
    let slots = map(abi::SLOTS)?;
    let opened = slots.info().map_err(Error::map("examining", abi::SLOTS))?;
    let slots: Array<MapData, u64> = Map::Array(slots)
        .try_into()
        .map_err(Error::map("shape", abi::SLOTS))?;
    let bases: Array<MapData, RawCounters> = Map::Array(map(abi::BASES)?)
        .try_into()
        .map_err(Error::map("shape", abi::BASES))?;
    let counters: PerCpuArray<MapData, RawGroup> = Map::PerCpuArray(map(abi::COUNTERS)?)
        .try_into()
        .map_err(Error::map("shape", abi::COUNTERS))?;
    // While one instance takes another's place, these pins may be of both.
    let pinned = MapInfo::from_pin(folder.join(abi::SLOTS));
    let pinned = pinned.map_err(Error::map("opening", abi::SLOTS))?;
    if pinned.id() != opened.id() {
        return Ok(None);
    }
    let slots = sys::read_all(&slots).map_err(batch("reading", abi::SLOTS))?;
    let bases = sys::read_all(&bases).map_err(batch("reading", abi::BASES))?;
    let mut all = Vec::new();
    let groups = slots.chunks(COUNTER_GROUP.into());
    for ((element, slots), bases) in (0..).zip(groups).zip(bases.chunks(COUNTER_GROUP.into())) {
        let rules = slots.iter().map(|slot| Slot::from_bits(*slot).content());
        let rules: Vec<_> = rules.collect();
        if rules.iter().all(Option::is_none) {
            continue;
        }
        let of_cpus = counters.get(&element, 0);
        let of_cpus = of_cpus.map_err(Error::map("reading", abi::COUNTERS))?;
        for (place, (rule, base)) in rules.into_iter().zip(bases).enumerate() {
            let Some((destination, _)) = rule else {
                continue;
            };
            let sum = |which: usize| {
                let of_cpus = of_cpus.iter().map(|group| group[place][which]);
                of_cpus.fold(0, u64::wrapping_add).wrapping_sub(base[which])
            };
            let (packets, bytes) = (sum(0), sum(1));
            all.push((destination, Counters { packets, bytes }));
        }
    }
    Ok(Some(all))
}
