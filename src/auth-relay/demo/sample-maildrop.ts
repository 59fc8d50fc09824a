/** The sample maildrop of the demo: its messages, and the Maildir that holds them. */
import { chownSync, existsSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

type Owner = { readonly uid: number; readonly gid: number }

/**
 * RFC 5322 messages of the demo, in the order of their numbers. The second begins lines with dots,
 * the third is not ASCII.
 */
const MESSAGES = [
  `From: "auth-relay" <postmaster@demo.example>
To: demo@demo.example
Subject: Your address may send mail now
Date: Mon, 05 Jan 2026 09:00:00 +0000
Message-ID: <1@demo.example>

You have just opened this maildrop by POP3. Before the server said +OK
to your password, your address was written into the table of grants:
for the next half hour the SMTP server relays for it, and for no other.

The third command on the demo's screen shows that table.
`,
  `From: Ann <ann@demo.example>
To: demo@demo.example
Subject: Dots at the beginning of lines
Date: Mon, 05 Jan 2026 09:05:00 +0000
Message-ID: <2@demo.example>

.
..
...and a line that is not the end.
`,
  `From: =?utf-8?q?J=C3=BCrgen?= <juergen@demo.example>
To: demo@demo.example
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Mon, 05 Jan 2026 09:10:00 +0000
Message-ID: <3@demo.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße aus dem Postfach. Antworten Sie ruhig: Ihre Adresse ist bekannt.
`,
]

/**
 * When the first of them was delivered, in Unix seconds. Messages are numbered in the order of
 * their files' times.
 */
const DELIVERED_S = 1_767_603_600

/** Makes a Maildir with a few messages for the owner. An existing Maildir stays unchanged. */
export function ensureSampleMaildrop(maildir: string, owner: Owner | undefined): void {
  if (existsSync(maildir)) return
  for (const directory of [maildir, ...['tmp', 'new', 'cur'].map(name => join(maildir, name))]) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    own(directory, owner)
  }
  for (const [index, message] of MESSAGES.entries()) {
    const time = DELIVERED_S + index * 300
    const path = join(maildir, 'new', `${time}.M0P0Q${index + 1}.demo.example`)
    writeFileSync(path, message, { mode: 0o600 })
    utimesSync(path, time, time)
    own(path, owner)
  }
}

function own(path: string, owner: Owner | undefined): void {
  if (owner !== undefined) chownSync(path, owner.uid, owner.gid)
}
