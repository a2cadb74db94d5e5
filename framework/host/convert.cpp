#include "egw/host/convert.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "egw/host/descriptor.hpp"

namespace egw::host {
namespace {

constexpr int kMaxDepth = 64;

template <class T>
egw_span span_of(const std::vector<T>& v) {
  return {v.data(), v.size(), sizeof(T)};
}

Errc to_errc(std::int32_t status) {
  return status > EGW_OK && status <= EGW_INTERNAL ? static_cast<Errc>(status) : Errc::kInternal;
}
static_assert(static_cast<int>(Errc::kInvalid) == EGW_INVALID);
static_assert(static_cast<int>(Errc::kNotFound) == EGW_NOT_FOUND);
static_assert(static_cast<int>(Errc::kExists) == EGW_EXISTS);
static_assert(static_cast<int>(Errc::kConflict) == EGW_CONFLICT);
static_assert(static_cast<int>(Errc::kDenied) == EGW_DENIED);
static_assert(static_cast<int>(Errc::kStaleTerm) == EGW_STALE_TERM);
static_assert(static_cast<int>(Errc::kUnavailable) == EGW_UNAVAILABLE);
static_assert(static_cast<int>(Errc::kNeedFull) == EGW_NEED_FULL);
static_assert(static_cast<int>(Errc::kPartial) == EGW_PARTIAL);
static_assert(static_cast<int>(Errc::kUnsupported) == EGW_UNSUPPORTED);
static_assert(static_cast<int>(Errc::kInternal) == EGW_INTERNAL);

// A recursive reader of the document (dump) must not run out of stack.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// A tunnel address: host bits stay.
egw_prefix interface_address(const model::Address& address, std::uint8_t length) {
  egw_prefix out{};
  out.addr = to_abi(address);
  out.len = address ? length : std::uint8_t{0};
  return out;
}

}  // namespace

// What admission denies is told with every reason.
constexpr std::size_t kMostReasons = 64U << 10U;

void ErrorText::set(void* ctx, std::int32_t sys_errno, egw_str what, egw_str message) noexcept {
  auto* self = static_cast<ErrorText*>(ctx);
  self->sys_errno_ = sys_errno;
  self->what_ = plain_text(what, 256);
  self->message_ =
      message.len > kMostText ? plain_text(message) : plain_lines(raw_view(message), kMostReasons);
}

std::optional<Error> ErrorText::error(std::int32_t status, const char* operation) const {
  if (status == EGW_OK) return std::nullopt;
  std::string message = status == EGW_DENIED ? message_ : plain_text(std::string_view(message_));
  if (status < EGW_OK || status > EGW_INTERNAL) {
    message = std::string(operation) + " answered with the unknown status " +
              std::to_string(status) + (message.empty() ? "" : ": ") + message;
  } else if (message.empty()) {
    message = std::string(operation) + " failed with status " + std::to_string(status) +
              " and gave no reason";
  }
  return Error{to_errc(status), what_.empty() ? plugin_ : what_, std::move(message), sys_errno_};
}

egw_object_kind to_abi(model::Kind kind) {
  const model::KindInfo& info = model::info(kind);
  egw_object_kind out{};
  out.struct_size = sizeof(out);
  out.namespaced = info.namespaced ? 1 : 0;
  out.group = to_abi(info.group);
  out.version = to_abi(info.version);
  out.kind = to_abi(info.kind);
  out.plural = to_abi(info.plural);
  return out;
}

std::optional<model::Kind> to_model(const egw_object_kind* kind) {
  const egw_object_kind k = read_struct(kind);
  for (const model::KindInfo& info : model::all_kinds()) {
    if (info.kind == raw_view(k.kind) && info.group == raw_view(k.group)) return info.id;
  }
  return std::nullopt;
}

egw_addr to_abi(const model::Address& address) {
  egw_addr out{};
  out.family = static_cast<std::uint8_t>(address.family());
  std::memcpy(out.bytes, address.bytes().data(), sizeof(out.bytes));
  return out;
}

egw_prefix to_abi(const model::Prefix& prefix) {
  egw_prefix out{};
  out.addr = to_abi(prefix.address());
  out.len = static_cast<std::uint8_t>(prefix.length());
  return out;
}

model::Address to_model(const egw_addr& address) {
  if (address.family == 4) {
    return model::Address::v4(
        {address.bytes[0], address.bytes[1], address.bytes[2], address.bytes[3]});
  }
  if (address.family != 6) return {};
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), address.bytes, bytes.size());
  return model::Address::v6(bytes);
}

std::optional<nlohmann::json> parse_json(std::string_view text) {
  if (text.size() > kMaxJson || too_deep(text)) return std::nullopt;
  auto document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_discarded()) return std::nullopt;
  return document;
}

std::string dump_json(const nlohmann::json& document) {
  return document.is_null()
             ? std::string()
             : document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

AbiNode::AbiNode(const model::NodeConfig& n) {
  cluster_prefixes_.reserve(n.cluster_prefixes.size());
  for (const model::Prefix& p : n.cluster_prefixes) cluster_prefixes_.push_back(to_abi(p));
  node_.struct_size = sizeof(node_);
  node_.enable_ipv4 = n.enable_ipv4 ? 1 : 0;
  node_.enable_ipv6 = n.enable_ipv6 ? 1 : 0;
  node_.disable_checksum_offload = n.disable_checksum_offload ? 1 : 0;
  node_.name = to_abi(n.name);
  node_.tunnel_device = to_abi(n.tunnel_device);
  node_.tunnel_vni = n.tunnel_vni;
  node_.tunnel_port = n.tunnel_port;
  std::memcpy(node_.tunnel_mac, n.tunnel_mac.data(), n.tunnel_mac.size());
  node_.tunnel_v4 = interface_address(n.tunnel_v4, n.tunnel_v4_length);
  node_.tunnel_v6 = interface_address(n.tunnel_v6, n.tunnel_v6_length);
  node_.parent_device = to_abi(n.parent_device);
  node_.underlay = to_abi(n.underlay);
  node_.parent_v4 = to_abi(n.parent_v4);
  node_.parent_v6 = to_abi(n.parent_v6);
  node_.slot_mask = n.slot_mask;
  node_.ct_mask = n.ct_mask;
  node_.cluster_prefixes = span_of(cluster_prefixes_);
}

void AbiChange::add_peers(const model::Change& c) {
  // Reserved in full before the first span is taken of them.
  std::size_t cidrs = 0;
  for (const model::Peer& p : c.peers) cidrs += p.pod_cidrs.size();
  pod_cidrs_.reserve(cidrs);
  peers_.reserve(c.peers.size());
  for (const model::Peer& p : c.peers) {
    egw_peer peer{};
    peer.struct_size = sizeof(peer);
    peer.name = to_abi(p.name);
    peer.underlay = to_abi(p.underlay);
    peer.tunnel_v4 = to_abi(p.tunnel_v4);
    peer.tunnel_v6 = to_abi(p.tunnel_v6);
    std::memcpy(peer.mac, p.mac.data(), p.mac.size());
    peer.pod_cidrs = {pod_cidrs_.data() + pod_cidrs_.size(), p.pod_cidrs.size(),
                      sizeof(egw_prefix)};
    for (const model::Prefix& prefix : p.pod_cidrs) pod_cidrs_.push_back(to_abi(prefix));
    peers_.push_back(peer);
  }
}

void AbiChange::add_egresses(const model::Change& c) {
  egresses_.reserve(c.egresses.size());
  for (const model::Egress& e : c.egresses) {
    egw_egress egress{};
    egress.struct_size = sizeof(egress);
    egress.id = e.id;
    egress.kind = static_cast<std::uint8_t>(e.kind);
    egress.owner = static_cast<std::uint8_t>(e.owner);
    egress.may_serve = e.may_serve ? 1 : 0;
    egress.v4 = to_abi(e.v4);
    egress.v6 = to_abi(e.v6);
    egress.owner_peer = to_abi(e.owner_peer);
    egresses_.push_back(egress);
  }
}

void AbiChange::add_classes(const model::Change& c) {
  std::size_t rules = 0;
  for (const auto& [id, table] : c.classes) rules += table.size();
  rules_.reserve(rules);
  classes_.reserve(c.classes.size());
  for (const auto& [id, table] : c.classes) {
    egw_class cls{};
    cls.struct_size = sizeof(cls);
    cls.id = id;
    cls.rules = {rules_.data() + rules_.size(), table.size(), sizeof(egw_class_rule)};
    for (const model::ClassRule& r : table) {
      egw_class_rule rule{};
      rule.struct_size = sizeof(rule);
      rule.action = static_cast<std::uint8_t>(r.action);
      rule.destination = to_abi(r.destination);
      rule.egress_id = r.egress_id;
      rules_.push_back(rule);
    }
    classes_.push_back(cls);
  }
}

void AbiChange::add_endpoints(const model::Change& c) {
  endpoints_.reserve(c.endpoints.size());
  for (const auto& [address, class_id] : c.endpoints) {
    egw_endpoint endpoint{};
    endpoint.struct_size = sizeof(endpoint);
    endpoint.class_id = class_id;
    endpoint.address = to_abi(address);
    endpoints_.push_back(endpoint);
  }
  deleted_endpoints_.reserve(c.deleted_endpoints.size());
  for (const model::Address& a : c.deleted_endpoints) deleted_endpoints_.push_back(to_abi(a));
}

AbiChange::AbiChange(const model::Change& c) {
  if (c.node) node_.emplace(*c.node);
  add_peers(c);
  add_egresses(c);
  add_classes(c);
  add_endpoints(c);
  deleted_peers_.reserve(c.deleted_peers.size());
  for (const std::string& name : c.deleted_peers) deleted_peers_.push_back(to_abi(name));

  change_.struct_size = sizeof(change_);
  change_.full = c.full ? 1 : 0;
  change_.generation = c.generation;
  change_.base = c.base;
  change_.node = node_ ? node_->get() : nullptr;
  change_.peers = span_of(peers_);
  change_.egresses = span_of(egresses_);
  change_.classes = span_of(classes_);
  change_.endpoints = span_of(endpoints_);
  change_.deleted_peers = span_of(deleted_peers_);
  change_.deleted_egresses = span_of(c.deleted_egresses);
  change_.deleted_classes = span_of(c.deleted_classes);
  change_.deleted_endpoints = span_of(deleted_endpoints_);
}

}  // namespace egw::host
