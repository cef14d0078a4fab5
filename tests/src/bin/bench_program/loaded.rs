//! The programs: ours, empty ones, and what may stand in front of them.

use std::path::Path;

use aya::maps::ProgramArray;
use aya::programs::{
    ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use conntrack_agent::kernel::{
    AgentId, Build, Carrier, Instance, MarkBits, Object, Usable, load_again,
};
use conntrack_agent::port_table::{Capacity, Wanted, plan};
use conntrack_ebpf::abi;
use conntrack_tests::assembly::{
    CALL, Code, EXIT, LOAD_WORD, MOVE, MOVE_IMMEDIATE, PROGRAM, STORE_WORD, SUBTRACT, TABLE,
};
use uuid::Uuid;

use crate::packets::{FTP, TFTP, Way};

pub(crate) const MASK: u32 = 0xff00_0000;
pub(crate) const FTP_MARK: u32 = 1;
pub(crate) const TFTP_MARK: u32 = 2;

/// `TC_ACT_UNSPEC`, `include/uapi/linux/pkt_cls.h`.
pub(crate) const UNSPEC: i32 = -1;
/// `XDP_PASS`, include/uapi/linux/bpf.h.
pub(crate) const PASS: i32 = 2;

/// A loaded program that can be run.
pub(crate) enum Program {
    /// Our tc program.
    Instance(Box<Instance>),
    /// A tc program of this name.
    Tc(Ebpf, &'static str),
    /// An XDP program of this name.
    Xdp(Ebpf, &'static str),
}

impl Program {
    pub(crate) fn run(
        &mut self,
        options: TestRunOptions<'_>,
    ) -> Result<TestRunResult, ProgramError> {
        match self {
            Self::Instance(instance) => instance.program().test_run(options),
            Self::Tc(object, name) => tc(object, name).test_run(options),
            Self::Xdp(object, name) => xdp(object, name).test_run(options),
        }
    }

    fn fd(&mut self) -> &ProgramFd {
        match self {
            Self::Instance(instance) => instance.program().fd(),
            Self::Tc(object, name) => tc(object, name).fd(),
            Self::Xdp(object, name) => xdp(object, name).fd(),
        }
        .expect("a loaded program")
    }

    /// Does nothing and gives the verdict that ours gives.
    pub(crate) fn empty(way: Way) -> Self {
        let mut code = Code::default();
        let verdict = if way == Way::Xdp { PASS } else { UNSPEC };
        code.push(MOVE_IMMEDIATE, 0, 0, 0, verdict);
        code.push(EXIT, 0, 0, 0, 0);
        load(&code, way)
    }

    /// One that puts the packet's metadata back as it was when it came in, and then
    /// goes on with this program.
    pub(crate) fn anew(mut self, way: Way) -> Self {
        let mut code = Code::default();
        match way {
            Way::Tc | Way::TcAnew(_) => put_back_skb(&mut code),
            Way::Xdp => put_back_frame(&mut code),
        }
        code.load_table(2);
        code.push(MOVE_IMMEDIATE, 3, 0, 0, 0);
        code.push(CALL, 0, 0, 0, TAIL_CALL);
        code.push(MOVE_IMMEDIATE, 0, 0, 0, NO_PROGRAM);
        code.push(EXIT, 0, 0, 0, 0);
        let mut front = load(&code, way);
        let (Self::Tc(object, _) | Self::Xdp(object, _)) = &mut front else {
            unreachable!("made just now, as one of both");
        };
        let table = object.map_mut(TABLE).expect("the array");
        let mut table: ProgramArray<_> = table.try_into().expect("an array of programs");
        table.set(0, self.fd(), 0).expect("its only element");
        front
    }
}

/// `bpf_tail_call`, include/uapi/linux/bpf.h.
const TAIL_CALL: i32 = 12;
/// `bpf_xdp_adjust_meta`, likewise.
const ADJUST_META: i32 = 54;
/// A verdict that no program here gives.
const NO_PROGRAM: i32 = 77;

/// Mark and priority to 0.
fn put_back_skb(code: &mut Code) {
    const MARK: i16 = 8;
    const PRIORITY: i16 = 32;
    code.push(MOVE_IMMEDIATE, 2, 0, 0, 0);
    code.push(STORE_WORD, 1, 2, MARK, 0);
    code.push(STORE_WORD, 1, 2, PRIORITY, 0);
}

/// The metadata away: so many bytes as there are, which takes a call also where it
/// is 0.
fn put_back_frame(code: &mut Code) {
    const DATA: i16 = 0;
    const DATA_META: i16 = 8;
    code.push(MOVE, 6, 1, 0, 0);
    code.push(LOAD_WORD, 2, 6, DATA, 0);
    code.push(LOAD_WORD, 3, 6, DATA_META, 0);
    code.push(SUBTRACT, 2, 3, 0, 0);
    code.push(CALL, 0, 0, 0, ADJUST_META);
    code.push(MOVE, 1, 6, 0, 0);
}

fn load(code: &Code, way: Way) -> Program {
    let is_xdp = way == Way::Xdp;
    let section = if is_xdp { "xdp.frags" } else { "classifier" };
    let object = EbpfLoader::new().load(&code.object(section));
    let mut object = object.expect("an object with one program");
    if is_xdp {
        let program = xdp(&mut object, PROGRAM);
        load_again(|| program.load()).expect("the program in the kernel");
        Program::Xdp(object, PROGRAM)
    } else {
        let program = tc(&mut object, PROGRAM);
        load_again(|| program.load()).expect("the program in the kernel");
        Program::Tc(object, PROGRAM)
    }
}

fn tc<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    let program = object.program_mut(name).expect("the program");
    program.try_into().expect("a tc program")
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program = object.program_mut(name).expect("the program");
    program.try_into().expect("an XDP program")
}

/// An instance with a rule for FTP and one for TFTP, pinned in this folder.
pub(crate) fn instance(build: &Build, carrier: Carrier, folder: &Path, shared: &Path) -> Instance {
    let mut object = Object::new(
        build.clone(),
        AgentId::random(),
        MarkBits::new(MASK).expect("eight bits"),
        shared.to_owned(),
    );
    let router = Uuid::new_v4().to_string().parse().expect("a UUID");
    Instance::create(&mut object, folder, router, Capacity::DEFAULT, carrier).expect("an instance");
    let mut instance = open(folder);
    let wanted = Wanted::from([(FTP, FTP_MARK), (TFTP, TFTP_MARK)]);
    let image = instance.image().expect("its maps");
    let edit = plan(&image, &wanted).expect("room for two rules");
    instance.edit(&edit).expect("two rules");
    instance
}

/// What is pinned in this folder, once more.
pub(crate) fn open(folder: &Path) -> Instance {
    match Instance::open(folder).expect("the folder") {
        Usable::Whole(instance) => instance,
        Usable::Absent | Usable::Broken => panic!("the instance that was just made isn't whole"),
    }
}

/// The edition's XDP program, on the maps of the instance in this folder.
pub(crate) fn on_xdp(build: &Build, folder: &Path) -> Program {
    const NAME: &str = "classify_xdp";
    let mut loader = EbpfLoader::new();
    for map in [abi::PAGES, abi::SLOTS, abi::IDENTITY] {
        loader.map_pin_path(map, folder.join(map));
    }
    let mut object = loader.load(build.object()).expect("the object");
    let program = xdp(&mut object, NAME);
    load_again(|| program.load()).expect("the program in the kernel");
    Program::Xdp(object, NAME)
}
