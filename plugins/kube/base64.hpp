// Base64 (RFC 4648) of a kubeconfig's *-data keys. Used by kubeconfig.cpp and exec.cpp.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace egw::kube {

// nullopt: a character that does not belong there, or a length that cannot be.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);
[[nodiscard]] std::string encode_base64(std::string_view bytes);

}  // namespace egw::kube
