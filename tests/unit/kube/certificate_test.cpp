// The webhook's certificates over their life, by a clock handed in.
#include "certificate.hpp"

#include <gmock/gmock.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>

namespace egw::kube {
namespace {

using std::chrono::hours;
using testing::HasSubstr;

const std::vector<std::string> kNames = {"egw-webhook.egw.svc", "10.0.0.7", "fd00::7"};
const WallTime kStart = std::chrono::system_clock::from_time_t(1'800'000'000);

using X509Ptr = std::shared_ptr<X509>;

std::vector<X509Ptr> certificates(const std::string& pem) {
  std::vector<X509Ptr> out;
  const std::unique_ptr<BIO, int (*)(BIO*)> in(
      ::BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), ::BIO_free);
  while (X509* one = ::PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)) {
    out.emplace_back(one, ::X509_free);
  }
  return out;
}

// What a TLS client that trusts `authorities` says of the certificate; "ok".
std::string verified(const std::string& certificate, const std::string& authorities,
                     const std::string& name, WallTime now) {
  const auto chain = certificates(certificate);
  const auto roots = certificates(authorities);
  if (chain.empty()) return "no certificate";
  const std::unique_ptr<X509_STORE, void (*)(X509_STORE*)> store(::X509_STORE_new(),
                                                                 ::X509_STORE_free);
  for (const X509Ptr& root : roots) ::X509_STORE_add_cert(store.get(), root.get());
  const std::unique_ptr<X509_STORE_CTX, void (*)(X509_STORE_CTX*)> context(::X509_STORE_CTX_new(),
                                                                           ::X509_STORE_CTX_free);
  ::X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), nullptr);
  ::X509_STORE_CTX_set_default(context.get(), "ssl_server");
  X509_VERIFY_PARAM* parameters = ::X509_STORE_CTX_get0_param(context.get());
  ::X509_VERIFY_PARAM_set_time(parameters, std::chrono::system_clock::to_time_t(now));
  ::X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_X509_STRICT);
  if (::X509_VERIFY_PARAM_set1_ip_asc(parameters, name.c_str()) != 1) {
    ::X509_VERIFY_PARAM_set1_host(parameters, name.data(), name.size());
  }
  if (::X509_verify_cert(context.get()) == 1) return "ok";
  return ::X509_verify_cert_error_string(::X509_STORE_CTX_get_error(context.get()));
}

std::string verified(const Material& material, const std::string& name, WallTime now) {
  return verified(material.serving.certificate, material.authorities, name, now);
}

TEST(KubeCertificate, AFreshOneIsTrustedUnderItsNamesAlone) {
  Material material;
  EXPECT_TRUE(renew(material, kNames, kStart));
  for (const std::string& name : kNames) EXPECT_EQ(verified(material, name, kStart), "ok") << name;
  EXPECT_THAT(verified(material, "other.egw.svc", kStart), HasSubstr("mismatch"));
  EXPECT_THAT(verified(material, "10.0.0.8", kStart), HasSubstr("mismatch"));
  EXPECT_EQ(verified(material, kNames[0], kStart + kServingLife - hours(1)), "ok");
  EXPECT_THAT(verified(material, kNames[0], kStart + kServingLife + hours(1)),
              HasSubstr("expired"));
  EXPECT_EQ(trouble_of(material.serving, kStart), "");
  EXPECT_THAT(trouble_of(material.serving, kStart + kServingLife), HasSubstr("has run out"));
  EXPECT_THAT(trouble_of(material.serving, kStart - hours(2)), HasSubstr("not valid yet"));
  EXPECT_EQ(end_of(material.serving.certificate), kStart + kServingLife);
  EXPECT_EQ(certificates(material.authorities).size(), 1U);
}

TEST(KubeCertificate, AWildcardIsGoodForWhatItStandsForAndComesToRest) {
  Material material;
  const std::vector<std::string> names = {kNames[0], "*.example.org"};
  renew(material, names, kStart);
  EXPECT_EQ(verified(material, "a.example.org", kStart), "ok");
  EXPECT_FALSE(renew(material, names, kStart)) << "made anew at each look";
}

TEST(KubeCertificate, NothingIsDoneWhileAllIsWell) {
  Material material;
  renew(material, kNames, kStart);
  const std::string before = material.serving.certificate + material.authorities;
  EXPECT_FALSE(renew(material, kNames, kStart));
  EXPECT_FALSE(renew(material, kNames, kStart + kServingLife / 2));
  EXPECT_EQ(material.serving.certificate + material.authorities, before);
}

TEST(KubeCertificate, ServingIsRenewedWithAThirdOfItsLifeLeft) {
  Material material;
  renew(material, kNames, kStart);
  const Material first = material;
  const WallTime later = kStart + kServingLife * 7 / 10;
  EXPECT_TRUE(renew(material, kNames, later));
  EXPECT_NE(material.serving.certificate, first.serving.certificate);
  EXPECT_NE(material.serving.key, first.serving.key);
  EXPECT_EQ(material.authorities, first.authorities);
  EXPECT_EQ(end_of(material.serving.certificate), later + kServingLife);
  EXPECT_EQ(verified(material, kNames[0], later), "ok");
}

TEST(KubeCertificate, ANewAuthorityIsKnownBeforeItSigns) {
  Material material;
  renew(material, kNames, kStart);
  const std::string old_authority = material.authorities;
  // Serving is renewed on the way, as it is in life.
  const WallTime before = kStart + kAuthorityLife * 65 / 100;
  renew(material, kNames, before);
  ASSERT_EQ(material.authorities, old_authority);
  const Material first = material;

  const WallTime change = kStart + kAuthorityLife * 67 / 100;
  EXPECT_TRUE(renew(material, kNames, change));
  EXPECT_EQ(certificates(material.authorities).size(), 2U);
  EXPECT_EQ(material.serving.certificate, first.serving.certificate)
      << "who has not heard of the new authority yet must still trust what is served";
  EXPECT_EQ(verified(material, kNames[0], change), "ok");

  const WallTime signs = before + kServingLife * 7 / 10;
  EXPECT_TRUE(renew(material, kNames, signs));
  EXPECT_EQ(verified(material, kNames[0], signs), "ok");
  EXPECT_NE(verified(material.serving.certificate, old_authority, kNames[0], signs), "ok");

  const WallTime end = kStart + kAuthorityLife;
  EXPECT_TRUE(renew(material, kNames, end));
  EXPECT_EQ(certificates(material.authorities).size(), 1U) << "the old one has run out";
  EXPECT_EQ(verified(material, kNames[0], end), "ok");
}

TEST(KubeCertificate, WhateverIsDamagedIsMadeAnew) {
  Material good, other;
  renew(good, kNames, kStart);
  renew(other, kNames, kStart);
  const auto mended = [](Material material) {
    EXPECT_TRUE(renew(material, kNames, kStart));
    EXPECT_EQ(verified(material, kNames[0], kStart), "ok");
    EXPECT_EQ(trouble_of(material.serving, kStart), "");
    EXPECT_FALSE(renew(material, kNames, kStart)) << "it does not come to rest";
    return material;
  };
  Material damaged = good;
  damaged.serving.key = other.serving.key;
  EXPECT_EQ(mended(damaged).authorities, good.authorities);
  damaged = good;
  damaged.serving.certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  mended(damaged);
  damaged = good;
  damaged.serving = other.serving;  // signed by somebody else
  mended(damaged);
  damaged = good;
  damaged.authority_key = "";
  EXPECT_EQ(mended(damaged).serving.certificate, good.serving.certificate);
  damaged = good;
  damaged.authorities = std::string(1000, '\xff');
  mended(damaged);
}

TEST(KubeCertificate, OtherNamesNeedAnotherCertificate) {
  Material material;
  renew(material, {"a.egw.svc"}, kStart);
  EXPECT_TRUE(renew(material, {"a.egw.svc", "b.egw.svc"}, kStart));
  EXPECT_EQ(verified(material, "b.egw.svc", kStart), "ok");
  EXPECT_FALSE(renew(material, {"b.egw.svc"}, kStart)) << "one name less is no reason";
}

TEST(KubeCertificate, AuthoritiesAreMergedWithoutTheDeadAndTheDouble) {
  Material a, b;
  renew(a, kNames, kStart);
  renew(b, kNames, kStart + hours(24));
  const std::string both = merge_authorities(a.authorities, b.authorities, kStart + hours(24));
  EXPECT_EQ(both, a.authorities + b.authorities);
  EXPECT_EQ(merge_authorities(both, a.authorities, kStart + hours(24)), both);
  EXPECT_EQ(merge_authorities(both, "", kStart + kAuthorityLife), b.authorities);
  EXPECT_EQ(merge_authorities("no certificate", a.authorities, kStart), a.authorities);
}

TEST(KubeCertificate, AnEncryptedKeyIsNoKey) {
  Material material;
  renew(material, kNames, kStart);
  material.serving.key =
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n";
  EXPECT_THAT(trouble_of(material.serving, kStart), HasSubstr("not that of the certificate"));
}

}  // namespace
}  // namespace egw::kube
