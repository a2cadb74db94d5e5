// Names as Kubernetes has them (RFC 1123), checked in one place: for admission, selectors, the
// configuration and whoever makes names.
#pragma once

#include <string_view>

namespace egw::model {

// The name of most objects, and the prefix of a label's key.
[[nodiscard]] bool is_subdomain(std::string_view text);
// The name of a namespace.
[[nodiscard]] bool is_label(std::string_view text);

// What they ask for, for messages.
inline constexpr std::string_view kSubdomain =
    "1 to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
inline constexpr std::string_view kLabel =
    "1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends";

}  // namespace egw::model
