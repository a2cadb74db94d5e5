// Tables as kubectl prints them, and the columns of every kind. Used by `get`, `status`, `plugin`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/model/meta.hpp"

namespace egw::app {

using Row = std::vector<std::string>;

// Columns as wide as their widest cell, three spaces between. Rows that are added after the first
// format() keep its widths (a watch cannot widen what it has printed).
class Table {
 public:
  explicit Table(Row header) : header_(std::move(header)) {}
  // Cells hold what others wrote: without its control characters.
  void add(Row row);
  // Header (the first time) and the rows added since the last call.
  [[nodiscard]] std::string format();
  [[nodiscard]] bool empty() const { return rows_.empty(); }

 private:
  Row header_;
  std::vector<Row> rows_;
  std::vector<std::size_t> widths_;
  bool header_done_ = false;
};

struct RowStyle {
  bool with_namespace = false;  // -A
  bool wide = false;            // -o wide
  bool with_kind = false;       // several kinds in one answer: "kind.group/name"
};

[[nodiscard]] Row header_of(model::Kind kind, const RowStyle& style);
// now_ms: Unix time, for AGE.
[[nodiscard]] Row row_of(model::Kind kind, const nlohmann::json& document, const RowStyle& style,
                         std::int64_t now_ms);

// When an event happened last, in Unix ms; 0 where it does not say.
[[nodiscard]] std::int64_t event_ms(const nlohmann::json& document);

// "5s", "3m20s", "4h", "12d" as kubectl writes ages; "<unknown>" for a negative one.
[[nodiscard]] std::string format_age(std::int64_t ms);
// "egressgateway.egressgateway.spidernet.io", "node".
[[nodiscard]] std::string resource_name(model::Kind kind);

}  // namespace egw::app
