"""An SMTP server for tests: every mail that it takes becomes a file of a Maildir.

usage: smtp.py PORT MAILDIR CERTIFICATE KEY

It offers STARTTLS and, before and after it, AUTH PLAIN and LOGIN for the user
"penstock" with the password "secret". A recipient busy@... is answered 451, a
recipient gone@... 550, a second later slow@... is taken.
"""

import asyncio
import mailbox
import signal
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

ANSWERS = {"busy": "451 4.2.1 mailbox busy, try again later", "gone": "550 5.1.1 no such user"}


class Handler:
    def __init__(self, folder):
        self.box = mailbox.Maildir(folder)

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.partition("@")[0]
        if name in ANSWERS:
            return ANSWERS[name]
        if name == "slow":
            await asyncio.sleep(1)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = mailbox.MaildirMessage(envelope.content)
        mail["X-MailFrom"] = envelope.mail_from
        mail["X-RcptTo"] = ", ".join(envelope.rcpt_tos)
        self.box.add(mail)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    known = data.login == b"penstock" and data.password == b"secret"
    # handled=False lets the server say 535 itself.
    return AuthResult(success=known, handled=False)


async def main(port, folder, certificate, key):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    handler = Handler(folder)

    def session():
        return SMTP(handler, hostname="localhost", tls_context=tls, authenticator=authenticate,
                    auth_require_tls=False, enable_SMTPUTF8=True)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", port)
    stop = asyncio.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(s, stop.set)
    await stop.wait()
    server.close()


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:5]))
