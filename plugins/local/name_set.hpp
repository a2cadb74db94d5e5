// Names of objects, as a subscription keeps them of what it has delivered: sorted lists, as there
// may be 50,000 and nearly all come in order, once. Used by watcher.cpp.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace egw::local {

class NameSet {
 public:
  void insert(std::string_view ns, std::string_view name) {
    const auto found = names_.find(ns);
    auto& names = found != names_.end() ? found->second : names_[std::string(ns)];
    if (names.empty() || names.back() < name) {
      names.emplace_back(name);
      return;
    }
    const auto at = std::lower_bound(names.begin(), names.end(), name);
    if (*at != name) names.emplace(at, name);
  }
  // False: it was not in it.
  bool erase(std::string_view ns, std::string_view name) {
    const auto found = names_.find(ns);
    if (found == names_.end()) return false;
    auto& names = found->second;
    const auto at = std::lower_bound(names.begin(), names.end(), name);
    if (at == names.end() || *at != name) return false;
    names.erase(at);
    if (names.empty()) names_.erase(found);
    return true;
  }
  void clear() { names_.clear(); }
  // After many came at once.
  void shrink() {
    for (auto& [ns, names] : names_) names.shrink_to_fit();
  }

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> names_;  // by namespace
};

}  // namespace egw::local
