// See webhook_client.hpp.
#include "webhook_client.hpp"

#include <openssl/pem.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <stdexcept>

namespace egw::kube::test {
namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

struct TlsClient::Impl {
  asio::io_context loop;
  ssl::context context{ssl::context::tls_client};
  std::unique_ptr<ssl::stream<tcp::socket>> stream;
  std::array<char, 16384> chunk{};

  // Reads once; false: closed, or the time is over (`late`).
  bool read(std::string& out, milliseconds time, bool& late) {
    bool done = false, ok = false;
    stream->async_read_some(asio::buffer(chunk), [&](error_code error, std::size_t size) {
      done = true;
      ok = !error;
      out.append(chunk.data(), size);
    });
    loop.restart();
    loop.run_for(time);
    late = !done;
    if (late) {
      stream->lowest_layer().cancel();
      loop.restart();
      loop.run();
    }
    return ok;
  }
};

TlsClient::TlsClient(std::uint16_t port, const std::string& authorities, int newest)
    : impl_(std::make_unique<Impl>()) {
  if (!authorities.empty()) {
    impl_->context.add_certificate_authority(asio::buffer(authorities));
    impl_->context.set_verify_mode(ssl::verify_peer);
  }
  if (newest != 0) {
    ::SSL_CTX_set_security_level(impl_->context.native_handle(), 0);
    ::SSL_CTX_set_max_proto_version(impl_->context.native_handle(), newest);
  }
  impl_->stream = std::make_unique<ssl::stream<tcp::socket>>(impl_->loop, impl_->context);
  impl_->stream->lowest_layer().connect({asio::ip::make_address("127.0.0.1"), port});
  error_code error;
  impl_->stream->handshake(ssl::stream_base::client, error);
  if (error) throw std::runtime_error("handshake: " + error.message());
}

TlsClient::~TlsClient() = default;

bool TlsClient::send(const std::string& bytes) {
  error_code error;
  return asio::write(*impl_->stream, asio::buffer(bytes), error) == bytes.size() && !error;
}

std::string TlsClient::receive(milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  std::string out;
  for (bool late = false; !late;) {
    const std::size_t head = out.find("\r\n\r\n");
    const std::size_t length = out.find("Content-Length: ");
    if (head != std::string::npos && length != std::string::npos &&
        out.size() >= head + 4 + std::stoul(out.substr(length + 16))) {
      break;
    }
    const auto left = std::chrono::floor<milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !impl_->read(out, left, late)) break;
  }
  return out;
}

bool TlsClient::closed_within(milliseconds time) {
  std::string ignored;
  bool late = false;
  return !impl_->read(ignored, time, late) && !late;
}

std::string TlsClient::certificate() const {
  const std::unique_ptr<X509, void (*)(X509*)> peer(
      ::SSL_get1_peer_certificate(impl_->stream->native_handle()), ::X509_free);
  const std::unique_ptr<BIO, int (*)(BIO*)> out(::BIO_new(::BIO_s_mem()), ::BIO_free);
  ::PEM_write_bio_X509(out.get(), peer.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string post(const std::string& target, const std::string& body) {
  return "POST " + target +
         " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

Material loopback_material() {
  Material out;
  renew(out, {"127.0.0.1"}, std::chrono::system_clock::now());
  return out;
}

}  // namespace egw::kube::test
