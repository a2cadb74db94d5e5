// The pools of an EgressGateway under review. For admission_gateway.cpp and admission_defaults.cpp.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "egw/core/admission_support.hpp"

namespace egw::core::detail {

// One family of spec.ippools.
struct PoolSide {
  model::Family family;
  const char* list_key;
  const char* default_key;
  const std::vector<std::string>* entries;
  const std::string* default_eip;
  std::vector<std::pair<std::size_t, model::Range>> ranges;  // of the entries that are good
  bool complete = true;                                      // that are all, and it can be judged
  model::IpPool pool;
  model::IpPool old_pool;  // empty on create
  // What an update adds; everything on create. Only that is compared with other objects: a node
  // that came later must not stop a change of something else.
  model::IpPool added;

  // Empty entries are none: manifests of the Go implementation write ipv6: [""].
  [[nodiscard]] bool given() const {
    return std::any_of(entries->begin(), entries->end(),
                       [](const std::string& entry) { return !entry.empty(); });
  }
  [[nodiscard]] std::string list_path() const { return fmt::format("spec.ippools.{}", list_key); }
  [[nodiscard]] std::string default_path() const {
    return fmt::format("spec.ippools.{}", default_key);
  }
  // Calls f(path, address) for every entry with an address that is added and that `taken` has.
  template <class F>
  void each_common(const model::IpPool& taken, F&& f) const {
    if (!added.first_common(taken)) return;
    for (const auto& [i, range] : ranges) {
      const model::Address a =
          model::IpPool::of(family, {range}).minus(old_pool).first_common(taken);
      if (a) f(fmt::format("{}[{}]", list_path(), i), a);
    }
  }
};

// Default EIPs: checks those that are given, fills in the others.
void review_defaults(Review& review, const std::vector<PoolSide>& sides,
                     const std::optional<model::EgressGateway>& old);
// Takes a default out of the gateway that the manifest behind it does not name.
void forget_filled_in(Review& review, model::EgressGateway& gateway,
                      const model::EgressGateway& old);

}  // namespace egw::core::detail
