// Result and Error: what can fail in operation is a value. Used by every module of the framework.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace egw {

// Mirrors egw_status of the plugin ABI (framework/abi/types.h), without depending on it.
enum class Errc : std::uint8_t {
  kInvalid = 1,
  kNotFound = 2,
  kExists = 3,
  kConflict = 4,
  kDenied = 5,
  kStaleTerm = 6,
  kUnavailable = 7,
  kNeedFull = 8,
  kPartial = 9,
  kUnsupported = 10,
  kInternal = 11,
  kTimeout = 12,
};

// message: a full sentence for the operator: what is wrong, where, what to do. object: the thing
// concerned ("EgressPolicy default/web", a file, a key). sys_errno: 0 or an errno value.
struct Error {
  Errc code = Errc::kInternal;
  std::string object;
  std::string message;
  int sys_errno = 0;

  // "object: message (strerror)"; the parts that are empty are left out.
  [[nodiscard]] std::string to_string() const;
};

template <class T>
using Result = tl::expected<T, Error>;

[[nodiscard]] inline tl::unexpected<Error> fail(Errc code, std::string object, std::string message,
                                                int sys_errno = 0) {
  return tl::unexpected<Error>(Error{code, std::move(object), std::move(message), sys_errno});
}

}  // namespace egw
