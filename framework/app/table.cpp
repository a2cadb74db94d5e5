// Tables as kubectl prints them (table.hpp).
#include "egw/app/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "egw/model/text.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

constexpr const char* kNone = "<none>";

// The value at a JSON pointer as text; "<none>" where there is nothing.
std::string text_at(const json& document, const char* pointer) {
  const json::json_pointer p(pointer);
  if (!document.contains(p)) return kNone;
  const json& value = document.at(p);
  if (value.is_null() || value == "") return kNone;
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// A string field of an object; "" where it is not there or not a string.
std::string field_of(const json& object, const char* field) {
  if (!object.is_object()) return "";
  const auto found = object.find(field);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

struct Column {
  const char* title;
  std::function<std::string(const json&, std::int64_t now_ms)> cell;
};

Column plain(const char* title, const char* pointer) {
  return {title, [pointer](const json& d, std::int64_t) { return text_at(d, pointer); }};
}

// A field that the document leaves out when it has its default.
Column defaulted(const char* title, const char* pointer, const char* otherwise) {
  return {title, [pointer, otherwise](const json& d, std::int64_t) {
            std::string text = text_at(d, pointer);
            return text == kNone ? std::string(otherwise) : text;
          }};
}

Column age(const char* title, const char* pointer) {
  return {title, [pointer](const json& d, std::int64_t now_ms) {
            const auto at = model::parse_time(text_at(d, pointer));
            return at ? format_age(now_ms - *at) : std::string("<unknown>");
          }};
}

// Who writes the objects by hand gives status.podIPs alone.
std::string pod_ip(const json& document, std::int64_t) {
  const std::string ip = text_at(document, "/status/podIP");
  return ip == kNone ? text_at(document, "/status/podIPs/0/ip") : ip;
}

// "n2=10.6.1.56,fd00::55 n3" over the gateway's nodes.
std::string gateway_nodes(const json& document, std::int64_t) {
  std::string out;
  const json::json_pointer list("/status/nodeList");
  if (!document.contains(list)) return kNone;
  for (const auto& node : document.at(list)) {
    out += (out.empty() ? "" : " ") + field_of(node, "name");
    std::string eips;
    const json list_of_eips = node.is_object() ? node.value("eips", json::array()) : json::array();
    for (const auto& eip : list_of_eips) {
      for (const char* family : {"ipv4", "ipv6"}) {
        const std::string address = field_of(eip, family);
        if (!address.empty()) eips += (eips.empty() ? "=" : ",") + address;
      }
    }
    out += eips;
  }
  return out.empty() ? kNone : out;
}

std::string node_ready(const json& document, std::int64_t) {
  const json::json_pointer conditions("/status/conditions");
  if (document.contains(conditions)) {
    for (const auto& c : document.at(conditions)) {
      if (field_of(c, "type") == "Ready")
        return field_of(c, "status") == "True" ? "Ready" : "NotReady";
    }
  }
  return "Ready";  // as the controller takes a Node without the condition
}

std::string list_at(const json& document, const char* pointer, const char* field) {
  const json::json_pointer p(pointer);
  std::string out;
  if (document.contains(p) && document.at(p).is_array()) {
    for (const auto& item : document.at(p)) {
      const std::string text = field == nullptr
                                   ? (item.is_string() ? item.get<std::string>() : item.dump())
                                   : field_of(item, field);
      out += (out.empty() ? "" : ",") + text;
    }
  }
  return out.empty() ? kNone : out;
}

Column list(const char* title, const char* pointer, const char* field = nullptr) {
  return {title,
          [pointer, field](const json& d, std::int64_t) { return list_at(d, pointer, field); }};
}

Column count(const char* title, const char* pointer) {
  return {title, [pointer](const json& d, std::int64_t) {
            const json::json_pointer p(pointer);
            return std::to_string(d.contains(p) ? d.at(p).size() : 0);
          }};
}

// "egressgateway/egw"
std::string event_object(const json& document, std::int64_t) {
  std::string kind = text_at(document, "/regarding/kind");
  std::transform(kind.begin(), kind.end(), kind.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return kind + "/" + text_at(document, "/regarding/name");
}

std::string event_age(const json& document, std::int64_t now_ms) {
  const std::int64_t at = event_ms(document);
  return at == 0 ? "<unknown>" : format_age(now_ms - at);
}

// An event of an older writer has no series but fields that are called deprecated.
std::string event_count(const json& document, std::int64_t) {
  for (const char* pointer : {"/series/count", "/deprecatedCount"}) {
    std::string count = text_at(document, pointer);
    if (count != kNone) return count;
  }
  return "1";
}

std::vector<Column> columns_of(Kind kind) {
  switch (kind) {
    case Kind::kEgressGateway:
      return {plain("ipv4DefaultEIP", "/spec/ippools/ipv4DefaultEIP"),
              plain("ipv6DefaultEIP", "/spec/ippools/ipv6DefaultEIP"),
              defaulted("clusterDefault", "/spec/clusterDefault", "false"),
              plain("ipv4Total", "/status/ipUsage/ipv4Total"),
              plain("ipv4Free", "/status/ipUsage/ipv4Free"),
              plain("ipv6Total", "/status/ipUsage/ipv6Total"),
              plain("ipv6Free", "/status/ipUsage/ipv6Free")};
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return {plain("gateway", "/spec/egressGatewayName"), plain("ipv4", "/status/eip/ipv4"),
              plain("ipv6", "/status/eip/ipv6"),
              plain(kind == Kind::kEgressPolicy ? "egressNode" : "egressTunnel", "/status/node")};
    case Kind::kEgressTunnel:
      return {plain("tunnelMac", "/status/tunnel/mac"), plain("tunnelIPv4", "/status/tunnel/ipv4"),
              plain("tunnelIPv6", "/status/tunnel/ipv6"), plain("mark", "/status/mark"),
              plain("phase", "/status/phase")};
    case Kind::kEgressEndpointSlice:
    case Kind::kEgressClusterEndpointSlice:
      return {count("endpoints", "/endpoints")};
    case Kind::kEgressClusterInfo:
      return {plain("term", "/status/term"), count("peers", "/status/peers")};
    case Kind::kNode:
      return {{"status", node_ready}};
    case Kind::kPod:
      return {defaulted("status", "/status/phase", "Unknown"),
              {"ip", pod_ip},
              plain("node", "/spec/nodeName")};
    case Kind::kNamespace:
      return {defaulted("status", "/status/phase", "Active")};
    case Kind::kCalicoIpPool:
      return {plain("cidr", "/spec/cidr")};
    case Kind::kServiceCidr:
      return {list("cidrs", "/spec/cidrs")};
    case Kind::kEvent:
      return {{"last seen", event_age}, plain("type", "/type"), plain("reason", "/reason"),
              {"object", event_object}, {"count", event_count}, plain("message", "/note")};
  }
  return {};
}

// What -o wide adds, after AGE.
std::vector<Column> wide_columns_of(Kind kind) {
  switch (kind) {
    case Kind::kEgressGateway:
      return {{"nodes", gateway_nodes}, count("unplaced", "/status/unplaced")};
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return {defaulted("priority", "/spec/priority", "0"),
              defaulted("failurePolicy", "/spec/failurePolicy", "Drop"),
              list("destSubnet", "/spec/destSubnet")};
    case Kind::kEgressTunnel:
      return {plain("parent", "/status/tunnel/parent/name"),
              plain("parentIPv4", "/status/tunnel/parent/ipv4"),
              plain("parentIPv6", "/status/tunnel/parent/ipv6"),
              age("heartbeat", "/status/lastHeartbeatTime"),
              plain("realised", "/status/realised/revision")};
    case Kind::kEgressClusterInfo:
      return {plain("leader", "/status/leader"), plain("podCidrMode", "/status/podCidrMode"),
              list("extraCidr", "/status/extraCidr")};
    case Kind::kNode:
      return {list("addresses", "/status/addresses", "address"),
              list("podCIDRs", "/spec/podCIDRs")};
    case Kind::kPod:
      return {list("ips", "/status/podIPs", "ip")};
    default:
      return {};
  }
}

// An event's name and birth tell nobody anything.
bool has_name(Kind kind) { return kind != Kind::kEvent; }

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

}  // namespace

std::int64_t event_ms(const json& document) {
  for (const char* pointer : {"/series/lastObservedTime", "/deprecatedLastTimestamp", "/eventTime",
                              "/metadata/creationTimestamp"}) {
    if (const auto at = model::parse_time(text_at(document, pointer))) return *at;
  }
  return 0;
}

void Table::add(Row row) {
  for (std::string& cell : row) cell = model::one_line(std::move(cell));
  rows_.push_back(std::move(row));
}

std::string Table::format() {
  if (!header_done_) {
    widths_.assign(header_.size(), 0);
    rows_.insert(rows_.begin(), header_);
    for (const auto& row : rows_) {
      for (std::size_t i = 0; i < row.size() && i < widths_.size(); ++i) {
        widths_[i] = std::max(widths_[i], row[i].size());
      }
    }
    header_done_ = true;
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i + 1 == row.size()) {
        line += row[i];
      } else {
        line += fmt::format("{:<{}}   ", row[i], widths_[i]);
      }
    }
    out += line + "\n";
  }
  rows_.clear();
  return out;
}

Row header_of(Kind kind, const RowStyle& style) {
  Row row;
  if (style.with_namespace) row.emplace_back("NAMESPACE");
  if (has_name(kind)) row.emplace_back("NAME");
  for (const auto& column : columns_of(kind)) row.push_back(upper(column.title));
  if (has_name(kind)) row.emplace_back("AGE");
  if (style.wide) {
    for (const auto& column : wide_columns_of(kind)) row.push_back(upper(column.title));
  }
  return row;
}

Row row_of(Kind kind, const json& document, const RowStyle& style, std::int64_t now_ms) {
  Row row;
  if (style.with_namespace) row.push_back(text_at(document, "/metadata/namespace"));
  const std::string name = text_at(document, "/metadata/name");
  if (has_name(kind)) row.push_back(style.with_kind ? resource_name(kind) + "/" + name : name);
  for (const auto& column : columns_of(kind)) row.push_back(column.cell(document, now_ms));
  if (has_name(kind)) row.push_back(age("", "/metadata/creationTimestamp").cell(document, now_ms));
  if (style.wide) {
    for (const auto& column : wide_columns_of(kind)) row.push_back(column.cell(document, now_ms));
  }
  return row;
}

// k8s.io/apimachinery duration.HumanDuration.
std::string format_age(std::int64_t ms) {
  if (ms < -2000) return "<unknown>";
  const std::int64_t s = std::max<std::int64_t>(ms, 0) / 1000;
  const std::int64_t m = s / 60;
  const std::int64_t h = m / 60;
  const std::int64_t d = h / 24;
  const auto two = [](std::int64_t a, const char* ua, std::int64_t b, const char* ub) {
    return b == 0 ? fmt::format("{}{}", a, ua) : fmt::format("{}{}{}{}", a, ua, b, ub);
  };
  if (s < 120) return fmt::format("{}s", s);
  if (m < 10) return two(m, "m", s % 60, "s");
  if (m < 180) return fmt::format("{}m", m);
  if (h < 8) return two(h, "h", m % 60, "m");
  if (h < 48) return fmt::format("{}h", h);
  if (d < 8) return two(d, "d", h % 24, "h");
  if (d < 730) return fmt::format("{}d", d);
  return two(d / 365, "y", d % 365, "d");
}

std::string resource_name(Kind kind) {
  const auto& k = model::info(kind);
  return k.group.empty() ? std::string(k.singular) : fmt::format("{}.{}", k.singular, k.group);
}

}  // namespace egw::app
