// See resource.hpp.
#include "resource.hpp"

namespace egw::kube {

std::string escape(std::string_view text) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (kPlain.find(c) != std::string_view::npos) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

std::string Resource::collection(std::string_view ns) const {
  std::string out = group.empty() ? "/api/" : "/apis/" + escape(group) + "/";
  out += escape(version);
  if (!ns.empty()) out += "/namespaces/" + escape(ns);
  return out + "/" + escape(plural);
}

std::string Resource::object(std::string_view ns, std::string_view name) const {
  return collection(ns) + "/" + escape(name);
}

}  // namespace egw::kube
