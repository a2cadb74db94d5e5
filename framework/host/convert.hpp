// Between the model's values and the ABI's structs. Used by the proxies, on the worker's thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "egw/abi/datapath.h"
#include "egw/abi/state_store.h"
#include "egw/host/text.hpp"
#include "egw/model/meta.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::host {

// What an operation said besides its status. Give `sink()` to it, then ask result().
class ErrorText {
 public:
  explicit ErrorText(std::string plugin) : plugin_(std::move(plugin)) {}
  ErrorText(const ErrorText&) = delete;
  ErrorText& operator=(const ErrorText&) = delete;
  [[nodiscard]] const egw_error_sink* sink() const { return &sink_; }
  // EGW_OK: nothing; else the error, with `operation` named where the plugin said nothing.
  [[nodiscard]] std::optional<Error> error(std::int32_t status, const char* operation) const;

 private:
  static void set(void* ctx, std::int32_t sys_errno, egw_str what, egw_str message) noexcept;
  std::string plugin_, what_, message_;
  int sys_errno_ = 0;
  egw_error_sink sink_{this, set};
};

[[nodiscard]] egw_object_kind to_abi(model::Kind kind);
[[nodiscard]] std::optional<model::Kind> to_model(const egw_object_kind* kind);

[[nodiscard]] egw_addr to_abi(const model::Address& address);
[[nodiscard]] egw_prefix to_abi(const model::Prefix& prefix);
[[nodiscard]] model::Address to_model(const egw_addr& address);

// JSON from a plugin: at most kMaxJson bytes and 64 levels deep. nullopt: it is none.
inline constexpr std::size_t kMaxJson = 16U << 20U;
[[nodiscard]] std::optional<nlohmann::json> parse_json(std::string_view text);
// The text of a document; empty for null.
[[nodiscard]] std::string dump_json(const nlohmann::json& document);

// Borrows from the NodeConfig that it was made of.
class AbiNode {
 public:
  explicit AbiNode(const model::NodeConfig& node);
  AbiNode(const AbiNode&) = delete;
  AbiNode& operator=(const AbiNode&) = delete;
  [[nodiscard]] const egw_node_config* get() const { return &node_; }

 private:
  std::vector<egw_prefix> cluster_prefixes_;
  egw_node_config node_{};
};

// Borrows from the Change that it was made of. O(records), a few allocations per kind of record.
class AbiChange {
 public:
  explicit AbiChange(const model::Change& change);
  AbiChange(const AbiChange&) = delete;
  AbiChange& operator=(const AbiChange&) = delete;
  [[nodiscard]] const egw_change* get() const { return &change_; }

 private:
  void add_peers(const model::Change& change);
  void add_egresses(const model::Change& change);
  void add_classes(const model::Change& change);
  void add_endpoints(const model::Change& change);

  std::optional<AbiNode> node_;
  std::vector<egw_prefix> pod_cidrs_;
  std::vector<egw_peer> peers_;
  std::vector<egw_egress> egresses_;
  std::vector<egw_class_rule> rules_;
  std::vector<egw_class> classes_;
  std::vector<egw_endpoint> endpoints_;
  std::vector<egw_str> deleted_peers_;
  std::vector<egw_addr> deleted_endpoints_;
  egw_change change_{};
};

}  // namespace egw::host
