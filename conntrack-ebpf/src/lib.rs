//! The ABI between classifier and agent, and the packet parser.
//!
//! The same code runs in three places: in the kernel as part of the programs
//! (`program/`), in the agent, which writes the maps, and in host tests, where a
//! byte slice stands in for the packet. So nothing here allocates, panics or
//! does I/O, and nothing here uses aya; only `skb`, `skb_direct`,
//! `skb_copied` and `xdp_frame` do, on the BPF target.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "one program without calls: what the verifier knows of a value ends at a call"
)]

pub mod abi;
pub mod event;
pub mod handover;
pub mod lookup;
pub mod packet;
pub mod parse;
#[cfg(target_arch = "bpf")]
pub mod skb;
#[cfg(target_arch = "bpf")]
pub mod skb_copied;
#[cfg(target_arch = "bpf")]
pub mod skb_direct;
#[cfg(target_arch = "bpf")]
pub mod xdp_frame;
