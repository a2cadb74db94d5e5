// The result of a store write as a metric label.
#pragma once

#include <string_view>

#include "egw/model/result.hpp"

namespace egw::runtime {

[[nodiscard]] constexpr std::string_view label(Errc code) {
  switch (code) {
    case Errc::kInvalid:
      return "invalid";
    case Errc::kNotFound:
      return "not_found";
    case Errc::kExists:
      return "exists";
    case Errc::kConflict:
      return "conflict";
    case Errc::kDenied:
      return "denied";
    case Errc::kStaleTerm:
      return "stale_term";
    case Errc::kUnavailable:
      return "unavailable";
    case Errc::kTimeout:
      return "timeout";
    default:
      return "failed";
  }
}

template <class T>
[[nodiscard]] std::string_view write_result(const Result<T>& outcome) {
  return outcome ? std::string_view("ok") : label(outcome.error().code);
}

}  // namespace egw::runtime
