// See certificate.hpp.
#include "certificate.hpp"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <memory>

#include "egw/sdk/status.hpp"

namespace egw::kube {

namespace {

constexpr std::chrono::hours kBackdated{1};  // for clocks that are a little behind

template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Certificate = std::shared_ptr<X509>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION_free>>;

void free_stack(STACK_OF(X509) * stack) { sk_X509_free(stack); }

template <class T>
T need(T value, const char* what) {
  if (!value) {
    ::ERR_clear_error();
    throw sdk::Failure(sdk::Code::kInternal, std::string("OpenSSL cannot ") + what, "webhook");
  }
  return value;
}

std::string take(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(std::max(size, 0L))};
}

std::string pem_of(X509* certificate) {
  const Bio out(need(::BIO_new(::BIO_s_mem()), "get memory"));
  need(::PEM_write_bio_X509(out.get(), certificate), "write a certificate");
  return take(out);
}

std::string pem_of(EVP_PKEY* key) {
  const Bio out(need(::BIO_new(::BIO_s_mem()), "get memory"));
  need(::PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr),
       "write a key");
  return take(out);
}

Bio reader_of(const std::string& pem) {
  return Bio(need(::BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), "read from memory"));
}

std::vector<Certificate> read_certificates(const std::string& pem) {
  std::vector<Certificate> out;
  const Bio in = reader_of(pem);
  while (X509* one = ::PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)) {
    out.emplace_back(one, ::X509_free);
  }
  ::ERR_clear_error();
  return out;
}

Key read_key(const std::string& pem) {
  const Bio in = reader_of(pem);
  // Without a callback an encrypted key would be asked about on the terminal.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  Key out(::PEM_read_bio_PrivateKey(in.get(), nullptr, no_password, nullptr));
  ::ERR_clear_error();
  return out;
}

WallTime time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (::ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

void set_time(ASN1_TIME* out, WallTime time) {
  need(::ASN1_TIME_set(out, std::chrono::system_clock::to_time_t(time)), "write a time");
}

// More than a third of its life is left.
bool fresh(X509* certificate, WallTime now) {
  const WallTime from = time_of(::X509_get0_notBefore(certificate));
  const WallTime until = time_of(::X509_get0_notAfter(certificate));
  return now >= from && until - now > (until - from) / 3;
}

bool key_fits(X509* certificate, EVP_PKEY* key) {
  const bool fits = key != nullptr && ::X509_check_private_key(certificate, key) == 1;
  ::ERR_clear_error();
  return fits;
}

bool looks_like_address(const std::string& name) {
  return name.find_first_not_of("0123456789.") == std::string::npos ||
         name.find(':') != std::string::npos;
}

bool good_for(X509* certificate, const std::string& name) {
  if (looks_like_address(name)) return ::X509_check_ip_asc(certificate, name.c_str(), 0) == 1;
  // Whoever wants a wildcard wants it to be good for any such name.
  const std::string host = name.starts_with("*.") ? "x" + name.substr(1) : name;
  // As the API server does it: the common name is no name (RFC 6125).
  return ::X509_check_host(certificate, host.data(), host.size(),
                           X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
}

bool signed_by(X509* certificate, X509* authority) {
  EVP_PKEY* key = ::X509_get0_pubkey(authority);
  const bool yes = key != nullptr && ::X509_check_issued(authority, certificate) == X509_V_OK &&
                   ::X509_verify(certificate, key) == 1;
  ::ERR_clear_error();
  return yes;
}

void extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(
      need(::X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()), "make an extension"));
  need(::X509_add_ext(certificate, extension.get(), -1), "add an extension");
}

// A certificate for `key` that lacks its extensions and signature. issuer null: its own.
Certificate begin(EVP_PKEY* key, const std::string& name, X509* issuer, WallTime now,
                  std::chrono::hours life) {
  Certificate out(need(::X509_new(), "get memory"), ::X509_free);
  need(::X509_set_version(out.get(), 2), "set the version");
  std::array<unsigned char, 16> serial{};
  need(::RAND_bytes(serial.data(), static_cast<int>(serial.size())) == 1, "make a random number");
  serial[0] = static_cast<unsigned char>((serial[0] & 0x7f) | 0x40);  // positive, of full length
  const std::unique_ptr<BIGNUM, Freed<BN_free>> number(
      need(::BN_bin2bn(serial.data(), static_cast<int>(serial.size()), nullptr), "get memory"));
  need(::BN_to_ASN1_INTEGER(number.get(), ::X509_get_serialNumber(out.get())), "set the number");
  set_time(::X509_getm_notBefore(out.get()), now - kBackdated);
  set_time(::X509_getm_notAfter(out.get()), now + life);
  X509_NAME* subject = ::X509_get_subject_name(out.get());
  need(::X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(name.data()),
                                    static_cast<int>(name.size()), -1, 0),
       "set the name");
  need(::X509_set_issuer_name(out.get(),
                              issuer == nullptr ? subject : ::X509_get_subject_name(issuer)),
       "set the issuer");
  need(::X509_set_pubkey(out.get(), key), "set the key");
  return out;
}

KeyPair make_authority(WallTime now) {
  const Key key(need(EVP_EC_gen("P-256"), "make a key"));
  // Names differ, so that a former authority is not taken for the new one.
  const std::string name =
      "egw webhook " + std::to_string(std::chrono::system_clock::to_time_t(now));
  const Certificate made = begin(key.get(), name, nullptr, now, kAuthorityLife);
  extend(made.get(), made.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(made.get(), made.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  extend(made.get(), made.get(), NID_subject_key_identifier, "hash");
  need(::X509_sign(made.get(), key.get(), ::EVP_sha256()), "sign a certificate");
  return {pem_of(made.get()), pem_of(key.get())};
}

KeyPair issue(X509* authority, EVP_PKEY* authority_key, const std::vector<std::string>& names,
              WallTime now) {
  const Key key(need(EVP_EC_gen("P-256"), "make a key"));
  // The common name holds 64 bytes and nobody reads it (RFC 6125).
  const Certificate made = begin(key.get(), "egw webhook", authority, now, kServingLife);
  std::string alternatives;
  for (const std::string& name : names) {
    alternatives += (alternatives.empty() ? "" : ",") +
                    std::string(looks_like_address(name) ? "IP:" : "DNS:") + name;
  }
  extend(made.get(), authority, NID_basic_constraints, "critical,CA:FALSE");
  extend(made.get(), authority, NID_key_usage, "critical,digitalSignature");
  extend(made.get(), authority, NID_ext_key_usage, "serverAuth");
  extend(made.get(), authority, NID_subject_key_identifier, "hash");
  extend(made.get(), authority, NID_authority_key_identifier, "keyid:always");
  extend(made.get(), authority, NID_subject_alt_name, alternatives);
  need(::X509_sign(made.get(), authority_key, ::EVP_sha256()), "sign a certificate");
  return {pem_of(made.get()), pem_of(key.get())};
}

// Why no way leads from the first certificate, over those behind it, to one of the authorities;
// empty: one does.
std::string broken_way(const std::vector<Certificate>& chain, const std::string& authorities,
                       WallTime now) {
  const std::unique_ptr<X509_STORE, Freed<X509_STORE_free>> store(
      need(::X509_STORE_new(), "get memory"));
  for (const Certificate& one : read_certificates(authorities)) {
    need(::X509_STORE_add_cert(store.get(), one.get()), "keep a certificate");
  }
  const std::unique_ptr<STACK_OF(X509), Freed<free_stack>> between(
      need(sk_X509_new_null(), "get memory"));
  for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(between.get(), chain[i].get());
  const std::unique_ptr<X509_STORE_CTX, Freed<X509_STORE_CTX_free>> context(
      need(::X509_STORE_CTX_new(), "get memory"));
  need(::X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), between.get()),
       "check a certificate");
  need(::X509_STORE_CTX_set_default(context.get(), "ssl_server"), "check a certificate");
  X509_VERIFY_PARAM* how = ::X509_STORE_CTX_get0_param(context.get());
  ::X509_VERIFY_PARAM_set_time(how, std::chrono::system_clock::to_time_t(now));
  // Go takes each certificate of the bundle for an authority, also one that another has signed.
  ::X509_VERIFY_PARAM_set_flags(how, X509_V_FLAG_PARTIAL_CHAIN);
  const bool leads = ::X509_verify_cert(context.get()) == 1;
  ::ERR_clear_error();
  if (leads) return {};
  return ::X509_verify_cert_error_string(::X509_STORE_CTX_get_error(context.get()));
}

bool serving_is_good(const Material& material, const std::vector<Certificate>& authorities,
                     const std::vector<std::string>& names, WallTime now) {
  const std::vector<Certificate> chain = read_certificates(material.serving.certificate);
  if (chain.empty()) return false;
  X509* leaf = chain.front().get();
  const Key key = read_key(material.serving.key);
  return fresh(leaf, now) && key_fits(leaf, key.get()) &&
         std::all_of(names.begin(), names.end(),
                     [leaf](const std::string& name) { return good_for(leaf, name); }) &&
         std::any_of(authorities.begin(), authorities.end(),
                     [leaf](const Certificate& a) { return signed_by(leaf, a.get()); });
}

}  // namespace

bool renew(Material& material, const std::vector<std::string>& names, WallTime now) {
  const std::string current = merge_authorities(material.authorities, "", now);
  bool changed = current != material.authorities;
  material.authorities = current;
  std::vector<Certificate> authorities = read_certificates(material.authorities);
  Key key = read_key(material.authority_key);
  if (authorities.empty() || !fresh(authorities.front().get(), now) ||
      !key_fits(authorities.front().get(), key.get())) {
    const KeyPair made = make_authority(now);
    material.authorities = made.certificate + material.authorities;
    material.authority_key = made.key;
    authorities = read_certificates(material.authorities);
    key = read_key(material.authority_key);
    changed = true;
  }
  if (!serving_is_good(material, authorities, names, now)) {
    material.serving = issue(authorities.front().get(), key.get(), names, now);
    changed = true;
  }
  return changed;
}

std::string trouble_of(const KeyPair& pair, WallTime now) {
  const std::vector<Certificate> chain = read_certificates(pair.certificate);
  if (chain.empty()) return "there is no certificate in it";
  if (!key_fits(chain.front().get(), read_key(pair.key).get())) {
    return "the key is not that of the certificate";
  }
  if (now < time_of(::X509_get0_notBefore(chain.front().get()))) {
    return "the certificate is not valid yet";
  }
  if (now >= time_of(::X509_get0_notAfter(chain.front().get()))) {
    return "the certificate has run out";
  }
  return {};
}

std::string distrust_of(const std::string& certificate, const std::vector<std::string>& names,
                        const std::string& authorities, WallTime now) {
  const std::vector<Certificate> chain = read_certificates(certificate);
  if (chain.empty()) return "there is no certificate in it";
  const bool named = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return good_for(chain.front().get(), name);
  });
  if (!named) return "it is not for " + names.front();
  if (authorities.empty()) return {};
  const std::string broken = broken_way(chain, authorities, now);
  return broken.empty() ? broken : "ca.crt did not sign it (" + broken + ")";
}

WallTime end_of(const std::string& pem) {
  const std::vector<Certificate> chain = read_certificates(pem);
  return chain.empty() ? WallTime() : time_of(::X509_get0_notAfter(chain.front().get()));
}

std::string merge_authorities(const std::string& known, const std::string& more, WallTime now) {
  std::vector<Certificate> kept;
  std::string out;
  for (const std::string* pem : {&known, &more}) {
    for (const Certificate& one : read_certificates(*pem)) {
      const bool twice = std::any_of(kept.begin(), kept.end(), [&](const Certificate& k) {
        return ::X509_cmp(k.get(), one.get()) == 0;
      });
      const bool over = now >= time_of(::X509_get0_notAfter(one.get()));
      if (twice || over) continue;
      kept.push_back(one);
      out += pem_of(one.get());
    }
  }
  return out;
}

}  // namespace egw::kube
