// Anchored regular expressions: see name_patterns.hpp. Alone in this file, for <regex> compiles
// slowly and g++ 12 warns about its inside when sanitizers are on (GCC bug 105562).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "egw/net/name_patterns.hpp"

#include <algorithm>
#include <regex>

namespace egw::net {

struct NamePatterns::Impl {
  std::vector<std::regex> patterns;
};

NamePatterns::NamePatterns() : impl_(std::make_unique<Impl>()) {}
NamePatterns::~NamePatterns() = default;

Result<void> NamePatterns::set(const std::vector<std::string>& patterns) {
  impl_->patterns.clear();
  for (const auto& pattern : patterns) {
    try {
      impl_->patterns.emplace_back(pattern);
    } catch (const std::regex_error& error) {
      return fail(Errc::kInvalid, "feature.announcedInterfacesToExclude",
                  "\"" + pattern + "\" is not a regular expression: " + error.what());
    }
  }
  return {};
}

bool NamePatterns::match(const std::string& name) const {
  return std::any_of(impl_->patterns.begin(), impl_->patterns.end(),
                     [&](const auto& pattern) { return std::regex_match(name, pattern); });
}

}  // namespace egw::net
