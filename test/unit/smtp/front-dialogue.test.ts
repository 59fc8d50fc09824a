import { describe, expect, test } from 'vitest'
import { FrontSession, octets, type Replies, type SessionOptions, TestRules } from './front-session.ts'

const B = 'MAIL FROM:<scan@example.org>/'
const R = 'RCPT TO:<u@example.org>/'
const V = 'RCPT TO:<v@example.org>/'
const D = 'DATA/'
const E = 'RCPT TO:<x@evil.test>/'
const X = 'MAIL FROM:<ceo@example.org>/'
const BÜCHER = Buffer.from('bücher.example').toString('latin1')

const LONG = 'x'.repeat(3000)

/** MAIL commands that the front refuses because of their syntax, with the code of the reply. */
const REFUSED_MAIL: readonly (readonly [name: string, line: string, code: number])[] = [
  ['without a space before the parameter', 'MAIL FROM:<ceo@example.org>SIZE=1/', 501],
  ['without FROM', 'MAIL X<ceo@example.org>/', 501],
  ['without an argument', 'mail/', 501],
  ['with a long local part', `MAIL FROM:<${'x'.repeat(65)}@example.org>/`, 501],
  ['without UTF-8', 'MAIL FROM:<b\xfccher@example.org>/', 501],
  ['with BINARYMIME', 'MAIL FROM:<scan@example.org> BODY=BINARYMIME/', 501],
  ['with NUL', 'MAIL FROM:<ceo@example.org>\\0/', 500],
  ['with NUL behind the verb', ' MAIL\\0FROM:<ceo@example.org>/', 500],
  ['with a CR inside', 'MAIL FROM:<ceo@example.org>\\rRSET/', 500],
  ['on a long line', `\tmail FROM:<ceo@example.org> X=${LONG}/`, 500],
  ['in an old form', 'SAML FROM:<ceo@example.org>/', 502],
]

/** RCPT commands that the front refuses because of their syntax, with the text of the replies. */
const REFUSED_RECIPIENTS: readonly (readonly [name: string, line: string, code: number, text: string])[] = [
  ['without its bracket', 'RCPT TO:<u@example.org/', 501, 'syntax: RCPT TO:<address>'],
  ['with two addresses', 'RCPT TO:u@example.org <x@evil.test>/', 501, 'syntax: RCPT TO:<address>'],
  ['with a long local part', `rcpt to:<${'x'.repeat(65)}@example.org>/`, 501, 'the address is too long'],
  ['without UTF-8', 'RCPT TO:<u@b\xfccher.example>/', 501, 'the address is not UTF-8'],
  ['with NUL', 'RCPT TO:<u@example.org>\\0<x@evil.test>/', 500, 'control character in a command'],
  ['with a CR inside', 'RCPT TO:<u@example.org>\\rRSET/', 500, 'control character in a command'],
  ['on a long line', `  RCPT TO:<u@example.org> X=${LONG}/`, 500, 'line too long'],
]

type Vector = {
  readonly name: string
  /** Groups that the client writes; it waits for the replies between them. */
  readonly client: readonly string[]
  readonly replies: string
  /** The octets that the server read; undefined: all. */
  readonly saw?: string
  /** Afterwards the front has closed both sides. */
  readonly end?: boolean
  /** Messages that the double accepted. */
  readonly messages?: number
  readonly events?: readonly string[]
  readonly options?: () => SessionOptions
}

/**
 * A form of smuggling: content that ends a message at some server, with a second message behind it.
 */
const smuggled = (name: string, content: string, saw: string): Vector => ({
  name,
  client: [B, R, D, content],
  replies: '250 250 354 550',
  saw: `${B}${R}${D}${saw}`,
  end: true,
  messages: 0,
  events: ['mail_refused:line_endings'],
})

const VECTORS: readonly Vector[] = [
  { name: 'plain', client: [B, R, D, 'hi/./', 'QUIT/'], replies: '250 250 354 250 221', messages: 1, end: true },
  { name: 'batch', client: [B + R + D, 'hi/./QUIT/'], replies: '250 250 354 250 221', messages: 1, end: true },
  {
    name: 'two messages',
    client: [B, R, D, `1/./${B}${R}${D}`, '2/./'],
    replies: '250 250 354 250 250 250 354 250',
    messages: 2,
  },
  { name: 'sender', client: [X, R, D, 'RSET/', B], replies: '550 503 503 250 250', saw: `RSET/${B}` },
  { name: 'sender, batch', client: [X + R + D], replies: '550 503 503', saw: '' },
  { name: 'nested', client: [B, R, X, R, D], replies: '250 250 550 503 503', saw: B + R },
  { name: 'middle refused', client: [B + R + E + R + D], replies: '250 250 550 250 354', saw: B + R + R + D },
  {
    name: 'all refused',
    client: [B + E + D, 'RSET/', B, R, D],
    replies: '250 550 554 250 250 250 354',
    saw: `${B}RSET/${B}${R}${D}`,
  },
  {
    name: 'no RSET',
    client: [B, E, D, B],
    replies: '250 550 554 503',
    saw: B + B,
    options: () => ({ replies: { MAIL: ['250', '503'] } }),
  },
  {
    name: 'rate, RCPT',
    client: [B, R, D],
    replies: '250 450 450',
    saw: B,
    options: () => ({ rules: new TestRules(60, 0) }),
  },
  { name: 'rate, MAIL', client: [B, R], replies: '450 503', saw: '', options: () => ({ rules: new TestRules(0) }) },
  {
    name: 'counts returned',
    client: [B, R, R],
    replies: '250 550 250',
    options: () => ({ rules: new TestRules(60, 1), replies: { RCPT: ['550'] } }),
  },
  { name: 'null sender', client: ['MAIL FROM:<>/', R, D, 'x/./'], replies: '250 250 354 250', messages: 1 },
  {
    name: 'canonical',
    client: ['mail from: scan@example.org size=9/'],
    replies: '250',
    saw: 'MAIL FROM:<scan@example.org> size=9/',
  },
  { name: 'route', client: [B, 'RCPT TO:<@a.test,@b.test:u@example.org>/'], replies: '250 250', saw: B + R },
  { name: 'quoted', client: ['MAIL FROM:<"scan"@example.org>/', 'RCPT TO:<"a b"@example.org>/'], replies: '250 250' },
  { name: 'percent', client: [B, 'RCPT TO:<x%evil.test@example.org>/'], replies: '250 550', saw: B },
  { name: 'two addresses', client: [B, 'RCPT TO:u@example.org <x@evil.test>/'], replies: '250 501', saw: B },
  {
    name: 'syntax',
    client: ['MAIL X<a@b>/', 'MAIL FROM:<a@b>SIZE=1/', B, 'RCPT TO:<u@example.org/'],
    replies: '501 501 250 501',
    saw: B,
  },
  { name: 'space before the verb', client: [` \t${X}`, `  ${B}`], replies: '550 250', saw: B },
  {
    name: 'the old commands that begin a message',
    client: ['SEND FROM:<x@y>/', 'SAML FROM:<x@y>/', 'soml FROM:<x@y>/'],
    replies: '502 502 502',
    saw: '',
  },
  {
    name: 'NUL, CR',
    client: [B, 'RCPT TO:<u@example.org>\\0<x@evil.test>/', 'RCPT TO:<u@example.org>\\rRSET/'],
    replies: '250 500 500',
    saw: B,
  },
  {
    name: 'LF commands',
    client: [B.replace('/', '\\n'), R.replace('/', '\\n'), 'DATA\\n', 'hi/./'],
    replies: '250 250 354 250',
    saw: `${B}${R}${D}hi/./`,
  },
  { name: 'long line', client: [`NOOP ${'x'.repeat(3000)}/`, 'NOOP/'], replies: '500 250', saw: 'NOOP/' },
  { name: 'postmaster', client: [B, 'RCPT TO:<Postmaster>/'], replies: '250 250' },
  { name: 'UTF-8', client: [B, `RCPT TO:<u@${BÜCHER}>/`], replies: '250 250' },
  { name: 'no UTF-8', client: [B, 'RCPT TO:<u@b\xfccher.example>/'], replies: '250 501', saw: B },
  { name: 'STARTTLS', client: [`STARTTLS/${B}`], replies: '502 250', saw: B },
  { name: 'hidden', client: ['XCLIENT ADDR=127.0.0.1/', 'ETRN x/', 'EXPN x/'], replies: '502 502 502', saw: '' },
  { name: 'BDAT', client: [B, R, 'BDAT 6 LAST/QUIT/NOOP/'], replies: '250 250 502', saw: B + R, end: true },
  {
    name: 'BDAT behind commands that wait',
    client: [`${B}${R}BDAT 6 LAST/QUIT/`],
    replies: '250 250 502',
    saw: B + R,
    end: true,
  },
  { name: 'BDAT with NUL', client: [B, R, 'BDAT 6 LAST\\0/QUIT/'], replies: '250 250 500', saw: B + R, end: true },
  { name: 'DATA with NUL', client: [B, R, 'DATA\\0/', D], replies: '250 250 500 354', saw: B + R + D },
  {
    name: 'DATA with NUL, and content behind it',
    client: [`${B}${R}DATA\\0/${X}`],
    replies: '250 250 500',
    saw: B + R,
    end: true,
  },
  { name: 'BINARYMIME', client: ['MAIL FROM:<scan@example.org> BODY=BINARYMIME/'], replies: '501', saw: '' },
  {
    name: 'AUTH',
    client: ['AUTH LOGIN/', 'dQ==/', 'cA==/'],
    replies: '334 334 535',
    options: () => ({ replies: { AUTH: ['334'], '=': ['334', '535'] } }),
  },
  {
    name: 'AUTH, line',
    client: [`AUTH LOGIN/${X}`],
    replies: '334 501',
    options: () => ({ replies: { AUTH: ['334'], '=': ['501'] } }),
  },
  {
    name: 'AUTH, none',
    client: [`AUTH LOGIN/${X}`],
    replies: '502 550',
    saw: 'AUTH LOGIN/',
    events: ['auth_refused', 'mail_refused:sender'],
    options: () => ({ replies: { AUTH: ['502'] } }),
  },
  {
    name: 'AUTH, NUL in the answer',
    client: ['AUTH LOGIN/', 'a\\0b/'],
    replies: '334 421',
    saw: 'AUTH LOGIN/',
    end: true,
    options: () => ({ replies: { AUTH: ['334'] } }),
  },
  { name: 'AUTH, hidden', client: ['AUTH LOGIN/'], replies: '502', saw: '', options: () => ({ auth: 'hide' }) },
  { name: 'HELO', client: ['HELO/', 'HELO my_copier/'], replies: '250 250', saw: 'HELO [192.0.2.7]/HELO [192.0.2.7]/' },
  {
    name: 'HELO, canonical',
    client: ['helo  c/', 'EHLO\tcopier.example.org \t/', '  Ehlo [192.0.2.7]/', 'HELO c \xa0/'],
    replies: '250 250- 250- 250- 250- 250 250- 250- 250- 250- 250 250',
    saw: 'HELO c/EHLO copier.example.org/EHLO [192.0.2.7]/HELO [192.0.2.7]/',
    events: ['hello_replaced'],
  },
  {
    name: 'dots, empty',
    client: [B, R, D, '..a/.b/../. b/./', B, R, D, './'],
    replies: '250 250 354 250 250 250 354 250',
    messages: 2,
  },
  smuggled('LF.LF', `a\\n.\\n${X}${R}${D}b/./`, 'a'),
  smuggled('LF.CRLF', `a\\n./${X}${R}${D}b/./`, 'a'),
  smuggled('CRLF.LF', `a/.\\n${X}${R}${D}b/./`, 'a/.'),
  smuggled('CRLF.CRCRLF', `a/.\\r/${X}${R}${D}b/./`, 'a/.\\r'),
  smuggled('CR.CR', `a\\r.\\r${X}${R}${D}b/./`, 'a\\r'),
  smuggled('CRLF.CR', `a/.\\r${X}${R}${D}b/./`, 'a/.\\r'),
  smuggled('NUL behind the dot', `a/.\\0/${X}${R}${D}b/./`, 'a/.'),
  smuggled('NUL before the dot', `a/\\0./${X}${R}${D}b/./`, 'a/'),
  smuggled('first line LF', `S: a\\n\\nb\\n.\\n${X}${R}${D}c/./`, 'S: a'),
  smuggled('LF as first line', `\\n.\\n${X}${R}${D}c/./`, ''),
  smuggled('.LF as first line', `.\\n${X}${R}${D}c/./`, '.'),
  smuggled('CR.CRLF', `a\\r./${X}${R}${D}b/./`, 'a\\r'),
  smuggled('CRLF CR.CRLF', `a/\\r./${X}${R}${D}b/./`, 'a/\\r'),
  smuggled('LF.CR', `a\\n.\\r${X}${R}${D}b/./`, 'a'),
  {
    name: 'long content',
    client: [B, R, D, `${'x'.repeat(16_384)}./${'y'.repeat(1001)}./${'z'.repeat(2049)}././`],
    replies: '250 250 354 250',
    messages: 1,
  },
  {
    name: 'early data',
    client: [`${B}${R}${D}hi/./`],
    replies: '250 250 354 250',
    messages: 1,
    events: ['early_data_sent'],
  },
  {
    name: 'early, refused',
    client: [`${B}${R}${D}RSET/`],
    replies: '250 550 503',
    saw: B + R + D,
    end: true,
    options: () => ({ replies: { RCPT: ['550'], DATA: ['503'] } }),
  },
  { name: 'early, refused by the front', client: [`${B}${E}${D}RSET/`], replies: '250 550 554', saw: B, end: true },
  {
    name: 'server ends at DATA',
    client: [B, R, D],
    replies: '250 250 421',
    end: true,
    options: () => ({ replies: { DATA: [''] } }),
  },
  {
    name: 'server ends after the dot',
    client: [B, R, D, 'x/./'],
    replies: '250 250 354 421',
    end: true,
    options: () => ({ replies: { '.': [''] } }),
  },
  {
    name: '421 at the dot',
    client: [B, R, D, `x/./NOOP/`],
    replies: '250 250 354 421',
    saw: `${B}${R}${D}x/./NOOP/`,
    end: true,
    options: () => ({ replies: { '.': ['421'] } }),
  },
  {
    name: '421 to RCPT',
    client: [`${B}${R}${R}${D}`],
    replies: '250 421',
    end: true,
    options: () => ({ replies: { RCPT: ['421'] } }),
  },
  {
    name: 'reply of three lines',
    client: [B, `${R}NOOP/`],
    replies: '250 250- 250- 250 250',
    options: () => ({ replies: { RCPT: ['250-a\r\n250-b\r\n250 c\r\n'] } }),
  },
  { name: 'no reply', client: [B], replies: '421', end: true, options: () => ({ replies: { MAIL: ['hello\r\n'] } }) },
  {
    name: 'TLS on a clear port',
    client: ['\x16\x03\x01\x02\x00'],
    replies: '421',
    saw: '',
    end: true,
    events: ['front_ended:tls_hello'],
  },
  {
    name: 'QUIT refused',
    client: ['QUIT x/', 'NOOP/'],
    replies: '501 250',
    options: () => ({ replies: { QUIT: ['501'] } }),
  },
]

describe.each([
  { cut: undefined, renewsLate: false },
  { cut: 1, renewsLate: false },
  { cut: 2, renewsLate: true },
  { cut: 3, renewsLate: false },
  { cut: 7, renewsLate: true },
  { cut: undefined, renewsLate: true },
])('cut at every $cut octets, rules renewed late: $renewsLate', ({ cut, renewsLate }) => {
  const withCut: SessionOptions = { renewsLate, ...(cut === undefined ? {} : { cut }) }

  test.each(VECTORS)('$name', ({ client, replies, saw, end = false, messages, events, options }) => {
    const session = new FrontSession({ ...options?.(), ...withCut })
    for (const group of client) session.group(octets(group))
    expect(session.codes).toBe(replies)
    expect(session.server.saw).toBe(octets(saw ?? client.join('')))
    expect(session.isClosed).toBe(end)
    if (messages !== undefined) expect(session.server.messages).toBe(messages)
    if (events !== undefined) expect(session.events).toEqual(events)
  })

  describe.each(REFUSED_MAIL)('MAIL %s', (_name, line, code) => {
    test('leaves no earlier sender for later recipients', () => {
      const session = new FrontSession(withCut)
      for (const group of [B, R, line, V, D, 'x/./']) session.group(octets(group))
      expect(session.codes).toBe(`250 250 ${code} 503 503 502 250`)
      expect(session.server.saw).toBe(octets(`${B}${R}./`))
      expect(session.server.messages).toBe(0)
    })

    test('leaves no earlier sender in a batch, and the content is not run', () => {
      const session = new FrontSession(withCut).group(octets(`${B}${R}${line}${V}${D}x/./`))
      expect(session.codes).toBe(`250 250 ${code} 503 503`)
      expect(session.server.saw).toBe(octets(B + R))
      expect(session.isClosed).toBe(true)
    })

    test.each([B, 'RSET/', 'HELO c/', 'EHLO c/'])('is forgotten after %s', next => {
      const session = new FrontSession(withCut)
      for (const group of [line, R, next]) session.group(octets(group))
      const before = session.codes
      for (const group of [R, D, 'x/./']) session.group(octets(group))
      expect(session.codes).toBe(`${before} 250 354 250`)
      expect(before).toMatch(new RegExp(`^${code} 503 250`))
      expect(session.server.saw).toBe(octets(`${next}${R}${D}x/./`))
    })
  })

  describe.each(REFUSED_RECIPIENTS)('RCPT %s', (_name, line, code, text) => {
    test('is no recipient for DATA', () => {
      const session = new FrontSession(withCut)
      for (const group of [B, line, D]) session.group(octets(group))
      expect(session.codes).toBe(`250 ${code} 554`)
      expect(session.received).toMatch(new RegExp(`\r\n554 5\\.5\\.1 no valid recipients: ${text}\r\n$`))
      expect(session.server.saw).toBe(octets(B))
    })

    test('takes nothing from other recipients', () => {
      const session = new FrontSession(withCut)
      for (const group of [B, line, R, D, 'x/./']) session.group(octets(group))
      expect(session.codes).toBe(`250 ${code} 250 354 250`)
      expect(session.server.saw).toBe(octets(`${B}${R}${D}x/./`))
    })

    test('is not the reason of the refusal after a refused MAIL', () => {
      const session = new FrontSession(withCut)
      for (const group of [X, line, D]) session.group(octets(group))
      expect(session.codes).toBe('550 503 503')
      expect(session.server.saw).toBe('')
    })
  })

  test('a recipient refused by its syntax is permanent beside temporary refusals', () => {
    const session = new FrontSession({ ...withCut, rules: new TestRules(60, 0) })
    for (const group of [B, 'RCPT TO:<u/', R, D]) session.group(octets(group))
    expect(session.codes).toBe('250 501 450 554')
  })

  test('the reply to EHLO leaves out extensions that the front does not pass', () => {
    const session = new FrontSession(withCut).group('EHLO c\r\n')
    expect(session.received).toBe(
      '220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250 AUTH LOGIN\r\n',
    )
    const hiding = new FrontSession({ ...withCut, auth: 'hide' }).group('EHLO c\r\n')
    expect(hiding.received).not.toContain('AUTH')
    expect(hiding.received).toMatch(/250 SIZE\r\n$/)
  })

  test.each([
    ['LF', 'a\\nb\\n.\\nc/./', 'a/b/../c/./'],
    ['CR', 'a\\rb\\r.\\rc/./', 'a/b/../c/./'],
    ['CRCRLF', 'S: x\\r/T: y\\r/\\r/b\\r/.\\r/./', 'S: x/T: y//b/.././'],
    ['mixed', 'a/.\\nb\\n./c\\0/./', 'a/../b/../c /./'],
    ['the end after CRCRLF', 'a\\r/./', 'a/./'],
    ['a dot with two CRs', 'a/.\\r/b/./', 'a/../b/./'],
  ])('repairs %s', (_name, content, saw) => {
    const session = new FrontSession({ ...withCut, lineEndings: 'repair' })
    for (const group of [B, R, D, content]) session.group(octets(group))
    expect(session.codes).toBe('250 250 354 250')
    expect(session.server.saw).toBe(octets(`${B}${R}${D}${saw}`))
    expect(session.server.messages).toBe(1)
  })

  test.each(['a/', 'a/.', 'a/.\\r'])('writes no dot when the client ends after %s', content => {
    const session = new FrontSession(withCut)
    for (const group of [B, R, D, content]) session.group(octets(group))
    session.end()
    expect(session.server.saw).toBe(octets(`${B}${R}${D}${content}`))
    expect(session.serverInputEnded).toBe(true)
    expect(session.server.messages).toBe(0)
    expect(session.isClosed).toBe(true)
  })

  test('answers a client that ended after QUIT', () => {
    const session = new FrontSession(withCut)
    session.group(octets(`${B}${R}QUIT/`)).end()
    expect(session.codes).toBe('250 250 221')
    expect(session.isClosed).toBe(true)
  })

  test.each([
    ['at DATA', D, '250 250 354', 0],
    ['within early content', `${D}hi/`, '250 250 354', 0],
    ['after the dot of early content', `${D}hi/./`, '250 250 354 250', 1],
  ])('a client that ends %s', (_name, last, codes, messages) => {
    const session = new FrontSession(withCut).group(octets(B)).group(octets(R))
    session.dialogue.fromClient(Buffer.from(octets(last)))
    session.end()
    expect(session.codes).toBe(codes)
    expect(session.server.saw).toBe(octets(`${B}${R}${last}`))
    expect(session.server.messages).toBe(messages)
    expect(session.serverInputEnded).toBe(true)
    expect(session.isClosed).toBe(true)
  })

  test('a client that ends after the dot gets the reply to its message', () => {
    const session = new FrontSession(withCut)
    for (const group of [B, R, D]) session.group(octets(group))
    session.dialogue.fromClient(Buffer.from(octets('hi/./')))
    session.end()
    expect(session.codes).toBe('250 250 354 250')
    expect(session.server.messages).toBe(1)
    expect(session.isClosed).toBe(true)
  })

  test.each(['451 bare line feeds', '421 timeout', '552 too large'])(
    'passes an early reply of the server, and nothing of the content behind it: %s',
    reply => {
      const session = new FrontSession(withCut)
      for (const group of [B, R, D, 'some content\\r']) session.group(octets(group))
      session.fromServer(`${reply}\r\n`)
      session.group('\nRSET\r\n.\r\nRSET\r\n')
      expect(session.codes).toBe(`250 250 354 ${reply.slice(0, 3)}`)
      expect(session.isClosed).toBe(true)
      expect(session.server.saw).toBe(octets(`${B}${R}${D}some content\\r`))
    },
  )

  test.each<[name: string, client: readonly string[], replies: Replies, codes: string]>([
    ['as the banner', [], { banner: ['421 busy\r\n'] }, ''],
    ['to MAIL', [B], { MAIL: ['421'] }, '421'],
    ['to DATA', [B, R, D], { DATA: ['421'] }, '250 250 421'],
    ['to DATA with early content', [B, R, `${D}hi/./`], { DATA: ['421'] }, '250 250 421'],
    ['to the message', [B, R, D, 'hi/./'], { '.': ['421'] }, '250 250 354 421'],
    ['to AUTH', ['AUTH LOGIN/'], { AUTH: ['421'] }, '421'],
    ['to a line of AUTH', ['AUTH LOGIN/', 'dQ==/'], { AUTH: ['334'], '=': ['421'] }, '334 421'],
    ['to QUIT', ['QUIT/'], { QUIT: ['421'] }, '421'],
  ])('passes 421 %s, and nothing after it', (_name, client, replies, codes) => {
    const session = new FrontSession({ ...withCut, replies })
    for (const group of client) session.group(octets(group))
    const { saw } = session.server
    expect(session.received).toMatch(/421 \w+\r\n$/)
    expect(session.isClosed).toBe(true)
    session.dialogue.fromClient(Buffer.from(octets(`dQ==/NOOP/${B}`)))
    session.fromServer('250 later\r\n')
    session.group('')
    expect(session.codes).toBe(codes)
    expect(session.server.saw).toBe(saw)
    expect(session.events.at(-1)).toBe('front_ended:server_reply')
  })

  test('passes 421 without a command, and nothing after it', () => {
    const session = new FrontSession(withCut).group(octets(B))
    session.fromServer('421 timeout\r\n250 later\r\n')
    session.dialogue.fromClient(Buffer.from(octets(R)))
    expect(session.group('').codes).toBe('250 421')
    expect(session.isClosed).toBe(true)
    expect(session.server.saw).toBe(octets(B))
  })

  test('a server that ends within the content is reported, and nothing more is passed', () => {
    const session = new FrontSession(withCut)
    for (const group of [B, R, D, 'some/']) session.group(octets(group))
    session.dialogue.serverEnded()
    session.dialogue.fromClient(Buffer.from(octets('more/./')))
    session.group('')
    expect(session.received).toMatch(/\r\n421 4\.3\.0 the mail server behind ended the session\r\n$/)
    expect(session.codes).toBe('250 250 354 421')
    expect(session.isClosed).toBe(true)
    expect(session.server.saw).toBe(octets(`${B}${R}${D}some/`))
    expect(session.server.messages).toBe(0)
    expect(session.events).toEqual(['front_ended:server_ended'])
  })

  test('passes a reply without a command, and ends', () => {
    const session = new FrontSession(withCut)
    session.fromServer('451 timeout\r\n')
    expect(session.codes).toBe('451')
    expect(session.isClosed).toBe(true)
  })
})

test('reads no command before earlier ones are answered, at most 100', () => {
  const session = new FrontSession({ rules: new TestRules(1, 2000) })
  session.dialogue.fromClient(Buffer.from(octets(B + R.repeat(1000)), 'latin1'))
  expect(session.dialogue.acceptsInput).toBe(false)
  session.group('')
  expect(session.codes).toBe(Array.from({ length: 1001 }, () => '250').join(' '))
  expect(session.dialogue.acceptsInput).toBe(true)
})

test('returns the counts of a message unless the server accepts it', () => {
  const rules = new TestRules(3, 10)
  const session = new FrontSession({ rules, replies: { '.': ['550', '250'], RCPT: ['250', '550'] } })
  for (const group of [B, R + R, D, 'x/./']) session.group(octets(group))
  expect([rules.messages, rules.recipients]).toEqual([3, 10])
  for (const group of [B, R, 'RSET/']) session.group(octets(group))
  expect([rules.messages, rules.recipients]).toEqual([3, 10])
  for (const group of [B, R, B, R + R, D, 'x/./']) session.group(octets(group))
  expect([rules.messages, rules.recipients]).toEqual([2, 8])
  session.group(octets(B + R)).end()
  expect([rules.messages, rules.recipients]).toEqual([2, 8])
})

test('keeps the count of a message whose dot was passed, also without a reply', () => {
  const rules = new TestRules(3, 10)
  const session = new FrontSession({ rules, replies: { '.': [''] } })
  for (const group of [B, R, D, 'x/./']) session.group(octets(group))
  expect([rules.messages, rules.recipients]).toEqual([2, 9])
})

test('does not lose the message when its first recipient is refused by the server', () => {
  const rules = new TestRules(1, 10)
  const session = new FrontSession({ rules, replies: { RCPT: ['550', '250'] } })
  for (const group of [B + R + R, D, 'x/./']) session.group(octets(group))
  expect([rules.messages, rules.recipients]).toEqual([0, 9])
  expect(session.group(octets(B)).codes).toBe('250 550 250 354 250 450')
})

test('reports each habit of a device once in a session, and each refusal', () => {
  const session = new FrontSession({ lineEndings: 'repair', replies: { AUTH: ['502', '502', '502'] } })
  for (let round = 0; round < 3; round += 1)
    for (const group of ['HELO/', 'HELO my_copier/', 'AUTH LOGIN/', `${B}${R}${D}a\\n.\\nb/./`, X])
      session.group(octets(group))
  expect(session.server.messages).toBe(3)
  expect(session.events.filter(event => !event.startsWith('mail_refused'))).toEqual([
    'hello_replaced',
    'auth_refused',
    'early_data_sent',
    'line_ends_repaired',
  ])
  expect(session.events.filter(event => event === 'mail_refused:sender')).toHaveLength(3)
})

test('closes after twenty faults', () => {
  const session = new FrontSession()
  for (let count = 0; count < 20; count += 1) session.group('MAIL\r\n')
  expect(session.codes).toBe(`${'501 '.repeat(19)}421`)
  expect(session.isClosed).toBe(true)
})

test('accepts 10,000 recipients and no more', () => {
  const session = new FrontSession()
  session.group(octets(B + R.repeat(10_001)))
  expect(session.codes.endsWith('250 452')).toBe(true)
})

test('discards refused content up to a bound', () => {
  const session = new FrontSession()
  for (const group of [B, R, D, 'a\\n']) session.group(octets(group))
  const chunk = Buffer.alloc(1_048_576, 'x')
  let chunks = 0
  while (!session.isClosed && chunks < 100) {
    session.dialogue.fromClient(chunk)
    chunks += 1
  }
  expect(chunks).toBe(16)
  expect(session.codes).toBe('250 250 354 550')
})

test('refuses discarded content when the session is cancelled', () => {
  const session = new FrontSession()
  for (const group of [B, R, D, 'a\\nb']) session.group(octets(group))
  session.dialogue.endSession('idle', '421 4.4.2 idle')
  expect(session.codes).toBe('250 250 354 550')
})

test('a session that ends while MAIL waits for the rules passes nothing of it', () => {
  const session = new FrontSession({ renewsLate: true })
  session.dialogue.fromClient(Buffer.from(octets(`NOOP/${B}${R}`)))
  session.dialogue.endSession('stopped', '421 4.3.2 stopped')
  session.dialogue.rulesRenewed()
  session.group('')
  expect(session.isClosed).toBe(true)
  expect(session.server.saw).toBe('NOOP\r\n')
  expect(session.received).not.toContain('250')
})

test('one renewal of the rules is for one MAIL', () => {
  const session = new FrontSession({ renewsLate: true })
  session.dialogue.fromClient(Buffer.from(octets(`${B}RSET/${B}`)))
  session.dialogue.rulesRenewed()
  session.dialogue.rulesRenewed()
  session.dialogue.rulesRenewed()
  session.group('')
  expect(session.server.saw).toBe(octets(`${B}RSET/${B}`))
})
