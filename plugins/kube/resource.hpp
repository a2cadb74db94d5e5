// Paths of the Kubernetes API for the kinds that the host gives and the few of the plugins' own.
// Used by store.cpp, reflector.cpp, certificate_source.cpp and the election.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "egw/sdk/state_store.hpp"

namespace egw::kube {

// A kind, owning its texts.
struct Resource {
  std::string group, version, kind, plural;
  bool namespaced = false;

  Resource() = default;
  Resource(const char* the_group, const char* the_version, const char* the_kind,
           const char* the_plural, bool is_namespaced)
      : group(the_group),
        version(the_version),
        kind(the_kind),
        plural(the_plural),
        namespaced(is_namespaced) {}
  explicit Resource(const sdk::ObjectKind& k)
      : group(k.group),
        version(k.version),
        kind(k.kind),
        plural(k.plural),
        namespaced(k.namespaced) {}
  [[nodiscard]] std::string api_version() const {
    return group.empty() ? version : group + "/" + version;
  }
  // "egressgateways.egressgateway.spidernet.io/v1beta1", "pods/v1"
  [[nodiscard]] std::string text() const {
    return plural + (group.empty() ? "" : "." + group) + "/" + version;
  }
  // ns: empty for cluster-scoped kinds, or for all namespaces.
  [[nodiscard]] std::string collection(std::string_view ns) const;
  [[nodiscard]] std::string object(std::string_view ns, std::string_view name) const;
};

// Everything but letters, digits and "-._~" as %XX.
[[nodiscard]] std::string escape(std::string_view text);

// "?a=b&c=d"; empty values are left out.
class Parameters {
 public:
  Parameters& add(std::string_view name, std::string_view value) {
    if (value.empty()) return *this;
    text_ += text_.empty() ? '?' : '&';
    text_.append(name).append("=").append(escape(value));
    return *this;
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace egw::kube
