// Certificates that egw makes for its webhook: an authority and what it signs, ECDSA P-256, PEM
// (RFC 5280). Pure but for the random numbers: the time is handed in. Used by
// certificate_source.cpp.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace egw::kube {

using WallTime = std::chrono::system_clock::time_point;

struct KeyPair {
  std::string certificate, key;  // PEM; the certificate may have others behind it
};

// What the replicas share. `authorities`: the one that signs, then former ones that still count.
struct Material {
  std::string authorities, authority_key;
  KeyPair serving;
};

inline constexpr std::chrono::hours kAuthorityLife{2 * 365 * 24};
inline constexpr std::chrono::hours kServingLife{90 * 24};

// Makes of `material` what is good now for servers of these DNS names and IP addresses; whether
// anything was changed. Missing, unreadable, unfitting or with a third of its life left: made anew.
// A new authority leaves the serving certificate alone as long as that is good, so that the new one
// is known everywhere before it signs anything. Throws sdk::Failure (kInternal).
bool renew(Material& material, const std::vector<std::string>& names, WallTime now);

// Why this pair cannot be served now; empty: it can.
[[nodiscard]] std::string trouble_of(const KeyPair& pair, WallTime now);
// Why the API server, which asks for the first of these names and trusts only these authorities,
// does not accept it now; empty: it does. Any of the names will do. authorities empty: not judged.
[[nodiscard]] std::string distrust_of(const std::string& certificate,
                                      const std::vector<std::string>& names,
                                      const std::string& authorities, WallTime now);
// When the first certificate of a PEM ends; the epoch: it cannot be read.
[[nodiscard]] WallTime end_of(const std::string& pem);
// The certificates of `known`, without what has run out or is no certificate, and those of `more`
// that are not among them.
[[nodiscard]] std::string merge_authorities(const std::string& known, const std::string& more,
                                            WallTime now);

}  // namespace egw::kube
