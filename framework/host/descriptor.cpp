#include "egw/host/descriptor.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "egw/abi/datapath.h"
#include "egw/abi/leader_election.h"
#include "egw/abi/state_store.h"
#include "egw/host/text.hpp"

namespace egw::host {
namespace {

constexpr std::uint64_t kKnownCapabilities =
    EGW_CAP_POST_DNAT | EGW_CAP_DELTA | EGW_CAP_SINGLE_MACHINE;
constexpr std::size_t kMaxText = 256;
constexpr std::string_view kLayoutCharacters = "abcdefghijklmnopqrstuvwxyz0123456789-.";
constexpr std::size_t kMaxSchema = 256U << 10U;
constexpr std::uint32_t kMaxStruct = 64U << 10U;

struct Operation {
  const char* name;
  std::size_t offset;
};

#define EGW_OP(table, name) \
  Operation { #name, offsetof(table, name) }
constexpr Operation kStateStoreOps[] = {
    EGW_OP(egw_state_store_ops, open),      EGW_OP(egw_state_store_ops, close),
    EGW_OP(egw_state_store_ops, subscribe), EGW_OP(egw_state_store_ops, unsubscribe),
    EGW_OP(egw_state_store_ops, get),       EGW_OP(egw_state_store_ops, list),
    EGW_OP(egw_state_store_ops, write),     EGW_OP(egw_state_store_ops, health)};
constexpr Operation kLeaderElectionOps[] = {
    EGW_OP(egw_leader_election_ops, open), EGW_OP(egw_leader_election_ops, close),
    EGW_OP(egw_leader_election_ops, campaign), EGW_OP(egw_leader_election_ops, resign),
    EGW_OP(egw_leader_election_ops, health)};
constexpr Operation kDatapathOps[] = {
    EGW_OP(egw_datapath_ops, probe),    EGW_OP(egw_datapath_ops, open),
    EGW_OP(egw_datapath_ops, close),    EGW_OP(egw_datapath_ops, apply),
    EGW_OP(egw_datapath_ops, sysctls),  EGW_OP(egw_datapath_ops, observe),
    EGW_OP(egw_datapath_ops, counters), EGW_OP(egw_datapath_ops, health),
    EGW_OP(egw_datapath_ops, forget),   EGW_OP(egw_datapath_ops, purge)};
#undef EGW_OP

std::span<const Operation> operations(PluginKind kind) {
  switch (kind) {
    case PluginKind::kStateStore:
      return kStateStoreOps;
    case PluginKind::kLeaderElection:
      return kLeaderElectionOps;
    case PluginKind::kDatapath:
      return kDatapathOps;
  }
  return {};
}

std::string check_abi(const egw_plugin_descriptor* raw) {
  constexpr std::uint32_t kSmallest =
      offsetof(egw_plugin_descriptor, ops) + sizeof(egw_plugin_descriptor::ops);
  if (raw->struct_size < offsetof(egw_plugin_descriptor, kind) || raw->struct_size > kMaxStruct) {
    return "has a descriptor of " + std::to_string(raw->struct_size) +
           " bytes: build the plugin with egw's headers";
  }
  if (raw->abi_major != EGW_ABI_MAJOR) {
    return "was built for plugin ABI " + std::to_string(raw->abi_major) + "." +
           std::to_string(raw->abi_minor) + " and this egw speaks " +
           std::to_string(EGW_ABI_MAJOR) + "." + std::to_string(EGW_ABI_MINOR) +
           (raw->abi_major > EGW_ABI_MAJOR ? ": install a newer egw or an older plugin"
                                           : ": install a newer plugin");
  }
  if (raw->struct_size < kSmallest) {
    return "has a descriptor of " + std::to_string(raw->struct_size) + " bytes, ABI " +
           std::to_string(EGW_ABI_MAJOR) + " needs " + std::to_string(kSmallest) +
           ": build the plugin with egw's headers";
  }
  return {};
}

// Copies a descriptor's string; what is wrong with it, or empty.
std::string take(const char* field, egw_str value, std::size_t limit, std::string& out) {
  if (value.data == nullptr && value.len != 0) {
    return std::string("has a descriptor whose ") + field +
           " has a length but no text: correct the plugin";
  }
  if (value.len > limit) {
    return std::string("has a descriptor whose ") + field + " is " + std::to_string(value.len) +
           " bytes long (at most " + std::to_string(limit) + "): correct the plugin";
  }
  out = field == std::string_view("config_schema") ? std::string(raw_view(value))
                                                   : plain_text(value, limit);
  return {};
}

std::string check_operations(PluginKind kind, const void* ops) {
  if (ops == nullptr) return "has no table of operations: correct the plugin";
  std::uint32_t size = 0;
  __builtin_memcpy(&size, ops, sizeof(size));
  if (size > kMaxStruct) {
    return "has a table of operations of " + std::to_string(size) +
           " bytes: build the plugin with egw's headers";
  }
  std::string missing;
  for (const Operation& op : operations(kind)) {
    const void* function = nullptr;
    if (op.offset + sizeof(function) <= size) {
      __builtin_memcpy(&function, static_cast<const char*>(ops) + op.offset, sizeof(function));
    }
    if (function == nullptr) missing += (missing.empty() ? "" : ", ") + std::string(op.name);
  }
  if (missing.empty()) return {};
  return "lacks the operation" + std::string(missing.find(',') == missing.npos ? " " : "s ") +
         missing + ": a " + std::string(to_string(kind)) + " plugin must offer all of them";
}

std::string hex(std::uint64_t value) {
  std::string out;
  do {
    out.insert(out.begin(), "0123456789abcdef"[value & 15U]);
    value >>= 4U;
  } while (value != 0);
  return "0x" + out;
}

}  // namespace

std::string_view to_string(PluginKind kind) {
  switch (kind) {
    case PluginKind::kStateStore:
      return "statestore";
    case PluginKind::kLeaderElection:
      return "leaderelection";
    case PluginKind::kDatapath:
      return "datapath";
  }
  return "unknown";
}

bool parse_kind(std::string_view text, PluginKind& kind) {
  for (const PluginKind k :
       {PluginKind::kStateStore, PluginKind::kLeaderElection, PluginKind::kDatapath}) {
    if (to_string(k) == text) {
      kind = k;
      return true;
    }
  }
  return false;
}

std::string config_key(PluginKind kind) {
  switch (kind) {
    case PluginKind::kStateStore:
      return "plugins.stateStore";
    case PluginKind::kLeaderElection:
      return "plugins.leaderElection";
    case PluginKind::kDatapath:
      return "plugins.datapath";
  }
  return "plugins";
}

bool is_plugin_name(std::string_view name) {
  return !name.empty() && name.size() <= 32 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

std::string read_descriptor(const egw_plugin_descriptor* descriptor, PluginKind kind,
                            const std::string& name, PluginInfo& info) {
  if (descriptor == nullptr) {
    return "gave no descriptor: its entry must return a constant one";
  }
  info.abi_major = descriptor->abi_major;
  info.abi_minor = descriptor->abi_minor;
  std::string wrong = check_abi(descriptor);
  if (!wrong.empty()) return wrong;
  const egw_plugin_descriptor d = read_struct(descriptor);
  info.capabilities = d.capabilities;

  if (wrong.empty()) wrong = take("name", d.name, 32, info.name);
  if (wrong.empty()) wrong = take("version", d.version, kMaxText, info.version);
  if (wrong.empty()) wrong = take("build_tag", d.build_tag, kMaxText, info.build_tag);
  if (wrong.empty()) wrong = take("config_schema", d.config_schema, kMaxSchema, info.config_schema);
  if (wrong.empty()) wrong = take("layout", d.layout, 32, info.layout);
  if (!wrong.empty()) return wrong;
  if (d.kind != static_cast<std::uint32_t>(kind)) {
    PluginKind other{};
    const bool known = d.kind >= 1 && d.kind <= 3;
    if (known) other = static_cast<PluginKind>(d.kind);
    return "is a " + (known ? std::string(to_string(other)) : "kind " + std::to_string(d.kind)) +
           " plugin, its file name says " + std::string(to_string(kind)) +
           ": rename the file or correct the plugin";
  }
  if (info.name != name) {
    return "calls itself \"" + info.name + "\", its file name says \"" + name +
           "\": rename the file or correct the plugin";
  }
  // It becomes the name of a folder.
  if (!info.layout.empty() &&
      (info.layout.front() == '.' ||
       info.layout.find_first_not_of(kLayoutCharacters) != std::string::npos)) {
    return "calls its layout \"" + info.layout +
           "\", expected a-z, 0-9, - and dots in between: correct the plugin";
  }
  if (const std::uint64_t unknown = d.required & ~kKnownCapabilities; unknown != 0) {
    return "needs capabilities that this egw does not have (bits " + hex(unknown) +
           "): install a newer egw";
  }
  if (!info.config_schema.empty() && !nlohmann::json::accept(info.config_schema)) {
    return "has a configuration schema that is no JSON: correct the plugin";
  }
  return check_operations(kind, d.ops);
}

}  // namespace egw::host
