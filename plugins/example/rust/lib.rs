//! A datapath in Rust over egw's C header alone: no crates, a cdylib. Its "kernel" is a map in memory.
//! What every operation owes the host: egw/abi/datapath.h, whose structs stand below as they are there.
//! Nothing may unwind into the host: the library is built with panic=abort.
#![allow(non_camel_case_types)]
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::net::{Ipv4Addr, Ipv6Addr};

// ---- egw/abi/types.h ----

#[repr(C)]
#[derive(Clone, Copy)]
pub struct egw_str {
    data: *const u8,
    len: usize,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct egw_span {
    data: *const u8,
    count: usize,
    stride: usize,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct egw_addr {
    family: u8,
    reserved: [u8; 3],
    bytes: [u8; 16],
}
#[repr(C)]
pub struct egw_error_sink {
    ctx: *mut c_void,
    set: extern "C" fn(*mut c_void, i32, egw_str, egw_str),
}
#[repr(C)]
pub struct egw_text_sink {
    ctx: *mut c_void,
    put: extern "C" fn(*mut c_void, egw_str),
}
const OK: i32 = 0;
const INVALID: i32 = 1;
const NEED_FULL: i32 = 8;
const PARTIAL: i32 = 9;

// ---- egw/abi/datapath.h: what this datapath reads. Structs are read by their struct_size, so the
// ---- fields after the last one named here do not matter ----

#[repr(C)]
#[derive(Clone, Copy)]
struct egw_egress {
    struct_size: u32,
    id: u32,
    kind: u8,
    owner: u8,
    may_serve: u8,
    reserved: u8,
    v4: egw_addr,
    v6: egw_addr,
    owner_peer: egw_str,
}
#[repr(C)]
#[derive(Clone, Copy)]
struct egw_class {
    struct_size: u32,
    id: u32,
    rules: egw_span,
}
#[repr(C)]
#[derive(Clone, Copy)]
struct egw_endpoint {
    struct_size: u32,
    class_id: u32,
    address: egw_addr,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct egw_change {
    struct_size: u32,
    full: u32,
    generation: u64,
    base: u64,
    node: *const c_void,
    peers: egw_span,
    egresses: egw_span,
    classes: egw_span,
    endpoints: egw_span,
    deleted_peers: egw_span,
    deleted_egresses: egw_span,
    deleted_classes: egw_span,
    deleted_endpoints: egw_span,
}
#[repr(C)]
pub struct egw_apply_report {
    ctx: *mut c_void,
    failed: extern "C" fn(*mut c_void, u32, egw_str, i32, egw_str),
    repaired: extern "C" fn(*mut c_void, egw_str, u64),
}
#[repr(C)]
pub struct egw_sysctl_sink {
    ctx: *mut c_void,
    need: extern "C" fn(*mut c_void, egw_str, egw_str, u32, egw_str),
}
#[repr(C)]
pub struct egw_probe_sink {
    ctx: *mut c_void,
    finding: extern "C" fn(*mut c_void, u32, egw_str, egw_str),
}
#[repr(C)]
pub struct egw_counter_sink {
    ctx: *mut c_void,
    counter: extern "C" fn(*mut c_void, egw_str, egw_str, u64),
}
type Error = *const egw_error_sink;
type Instance = *mut c_void;

#[repr(C)]
pub struct egw_datapath_ops {
    struct_size: u32,
    reserved: u32,
    probe: extern "C" fn(egw_str, *const c_void, *const egw_probe_sink, Error) -> i32,
    open: extern "C" fn(egw_str, egw_str, *const c_void, *mut Instance, Error) -> i32,
    close: extern "C" fn(Instance),
    apply: extern "C" fn(Instance, *const egw_change, *const egw_apply_report, Error) -> i32,
    sysctls: extern "C" fn(Instance, *const egw_sysctl_sink, Error) -> i32,
    observe: extern "C" fn(Instance, *const egw_text_sink, Error) -> i32,
    counters: extern "C" fn(Instance, *const egw_counter_sink, Error) -> i32,
    health: extern "C" fn(Instance, Error) -> i32,
    forget: extern "C" fn(Instance, *const egw_addr, Error) -> i32,
    purge: extern "C" fn(Instance, Error) -> i32,
}
#[repr(C)]
pub struct egw_plugin_descriptor {
    struct_size: u32,
    abi_major: u16,
    abi_minor: u16,
    kind: u32,
    reserved: u32,
    name: egw_str,
    version: egw_str,
    build_tag: egw_str,
    config_schema: egw_str,
    capabilities: u64,
    required: u64,
    ops: *const egw_datapath_ops,
}
unsafe impl Sync for egw_plugin_descriptor {}

// ---- the version rule: what lies beyond struct_size or the stride reads as zero ----

unsafe fn read<T: Copy>(at: *const u8, available: usize) -> T {
    let mut out = std::mem::zeroed::<T>();
    let size = available.min(std::mem::size_of::<T>());
    std::ptr::copy_nonoverlapping(at, (&mut out as *mut T).cast::<u8>(), size);
    out
}
/// Records that begin with struct_size.
fn records<T: Copy>(span: egw_span) -> impl Iterator<Item = T> {
    (0..span.count).map(move |i| unsafe {
        let at = span.data.add(i * span.stride);
        let size = read::<u32>(at, span.stride) as usize;
        read::<T>(at, size.min(span.stride))
    })
}
/// Plain values.
fn values<T: Copy>(span: egw_span) -> impl Iterator<Item = T> {
    (0..span.count).map(move |i| unsafe { read::<T>(span.data.add(i * span.stride), span.stride) })
}
const fn borrow(text: &str) -> egw_str {
    egw_str { data: text.as_ptr(), len: text.len() }
}
fn text_of(address: &egw_addr) -> String {
    if address.family == 4 {
        let b = &address.bytes;
        return Ipv4Addr::new(b[0], b[1], b[2], b[3]).to_string();
    }
    Ipv6Addr::from(address.bytes).to_string()
}
fn answer(error: Error, status: i32, message: &str) -> i32 {
    if let Some(sink) = unsafe { error.as_ref() } {
        (sink.set)(sink.ctx, 0, borrow(""), borrow(message));
    }
    status
}

// ---- the datapath ----

#[derive(Default)]
struct Table {
    generation: Option<u64>,
    egresses: BTreeSet<u32>,
    classes: BTreeSet<u32>,
    endpoints: BTreeMap<String, u32>,
    applied: u64,
}

impl Table {
    fn merge(&mut self, change: &egw_change) {
        if change.full != 0 {
            *self = Table { applied: self.applied, ..Table::default() };
        }
        for id in values::<u32>(change.deleted_egresses) {
            self.egresses.remove(&id);
        }
        for id in values::<u32>(change.deleted_classes) {
            self.classes.remove(&id);
        }
        for address in values::<egw_addr>(change.deleted_endpoints) {
            self.endpoints.remove(&text_of(&address));
        }
        self.egresses.extend(records::<egw_egress>(change.egresses).map(|e| e.id));
        self.classes.extend(records::<egw_class>(change.classes).map(|c| c.id));
        for endpoint in records::<egw_endpoint>(change.endpoints) {
            self.endpoints.insert(text_of(&endpoint.address), endpoint.class_id);
        }
        self.generation = Some(change.generation);
        self.applied += 1;
    }
}

fn table<'a>(instance: Instance) -> &'a mut Table {
    unsafe { &mut *instance.cast::<Table>() }
}

extern "C" fn probe(_: egw_str, _: *const c_void, out: *const egw_probe_sink, _: Error) -> i32 {
    let out = unsafe { &*out };
    (out.finding)(out.ctx, 1, borrow("Memory"), borrow("there is memory"));
    OK
}
extern "C" fn open(_: egw_str, _: egw_str, _: *const c_void, out: *mut Instance, _: Error) -> i32 {
    unsafe { *out = Box::into_raw(Box::new(Table::default())).cast() };
    OK
}
extern "C" fn close(instance: Instance) {
    drop(unsafe { Box::from_raw(instance.cast::<Table>()) });
}
extern "C" fn apply(
    instance: Instance,
    change: *const egw_change,
    report: *const egw_apply_report,
    error: Error,
) -> i32 {
    let held = table(instance);
    let report = unsafe { &*report };
    let change: egw_change = unsafe { read(change.cast(), *change.cast::<u32>() as usize) };
    if change.full == 0 && held.generation != Some(change.base) {
        return answer(error, NEED_FULL, "another state is held: send everything");
    }
    if change.full != 0 && change.node.is_null() {
        return answer(error, INVALID, "a full change without a node");
    }
    held.merge(&change);
    let mut bad = 0;
    for (address, class) in &held.endpoints {
        if !held.classes.contains(class) {
            let why = "its class does not exist: all its packets are dropped";
            (report.failed)(report.ctx, 5, borrow(address), 0, borrow(why));
            bad += 1;
        }
    }
    if bad == 0 {
        return OK;
    }
    answer(error, PARTIAL, "some objects could not be programmed")
}
extern "C" fn sysctls(_: Instance, out: *const egw_sysctl_sink, _: Error) -> i32 {
    let out = unsafe { &*out };
    let (key, why) = (borrow("net/ipv4/ip_forward"), borrow("pods' packets pass this node"));
    (out.need)(out.ctx, key, borrow("1"), 1, why);
    OK
}
extern "C" fn observe(instance: Instance, out: *const egw_text_sink, _: Error) -> i32 {
    let (held, out) = (table(instance), unsafe { &*out });
    let text = format!(
        "{{\"datapath\": \"rust-example\", \"counts\": [{}, {}, {}]}}",
        held.egresses.len(),
        held.classes.len(),
        held.endpoints.len()
    );
    (out.put)(out.ctx, borrow(&text));
    OK
}
extern "C" fn counters(instance: Instance, out: *const egw_counter_sink, _: Error) -> i32 {
    let out = unsafe { &*out };
    (out.counter)(out.ctx, borrow("applied"), borrow("kind=all"), table(instance).applied);
    OK
}
extern "C" fn health(_: Instance, _: Error) -> i32 {
    OK
}
extern "C" fn forget(_: Instance, _: *const egw_addr, _: Error) -> i32 {
    OK // this kernel has no connections
}
extern "C" fn purge(instance: Instance, _: Error) -> i32 {
    let applied = table(instance).applied;
    *table(instance) = Table { applied, ..Table::default() };
    OK
}

static OPS: egw_datapath_ops = egw_datapath_ops {
    struct_size: std::mem::size_of::<egw_datapath_ops>() as u32,
    reserved: 0,
    probe,
    open,
    close,
    apply,
    sysctls,
    observe,
    counters,
    health,
    forget,
    purge,
};
static DESCRIPTOR: egw_plugin_descriptor = egw_plugin_descriptor {
    struct_size: std::mem::size_of::<egw_plugin_descriptor>() as u32,
    abi_major: 1, // this datapath knows what 1.0 knew
    abi_minor: 0,
    kind: 3,
    reserved: 0,
    name: borrow("rust-example"),
    version: borrow("0.1.0"),
    build_tag: borrow("rust"),
    config_schema: borrow(""),
    capabilities: 1 << 1, // steps
    required: 0,
    ops: &OPS,
};

#[no_mangle]
pub extern "C" fn egw_plugin_entry_v1() -> *const egw_plugin_descriptor {
    &DESCRIPTOR
}
