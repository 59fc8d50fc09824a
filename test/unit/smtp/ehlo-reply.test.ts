import { expect, test } from 'vitest'
import { EhloReply, MAX_EHLO_REPLY, ReplyReader } from '../../../src/smtp/reply.ts'

const lines = (text: string) => new ReplyReader().push(Buffer.from(text, 'latin1'))

/** The results of each line of a reply. */
const collected = (reply: EhloReply, text: string) =>
  lines(text).map(line => {
    const result = reply.push(line)
    return typeof result === 'string'
      ? result
      : { text: result.octets.toString('latin1'), offersAuth: result.offersAuth }
  })

test('a reply is whole with its last line, without the extensions that the front answers itself', () => {
  const reply = new EhloReply(false)
  expect(collected(reply, '250-mx\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n')).toEqual([
    'unfinished',
    'unfinished',
    'unfinished',
    { text: '250-mx\r\n250 AUTH PLAIN\r\n', offersAuth: true },
  ])
})

test('each reply starts with an empty state', () => {
  const reply = new EhloReply(true)
  expect(collected(reply, '250-mx\r\n250 AUTH PLAIN\r\n').at(-1)).toEqual({ text: '250 mx\r\n', offersAuth: true })
  expect(collected(reply, '250 mx\r\n')).toEqual([{ text: '250 mx\r\n', offersAuth: false }])
  expect(collected(reply, '502 no EHLO here\r\n')).toEqual([{ text: '502 no EHLO here\r\n', offersAuth: false }])
})

test('a reply without an end is too long', () => {
  const reply = new EhloReply(false)
  const line = `250-${'x'.repeat(1000)}\r\n`
  const results = collected(reply, line.repeat(Math.ceil(MAX_EHLO_REPLY / line.length)))
  expect(results.slice(0, -1).every(result => result === 'unfinished')).toBe(true)
  expect(results.at(-1)).toBe('tooLong')
})

test.each([
  '250-auth.example.org\r\n250 SIZE 9\r\n',
  '250-auth greets you\r\n250 SIZE 9\r\n',
  '250-mx\r\n250 AUTH-LATER\r\n',
])('a host or an extension with a name like AUTH does not offer AUTH: %j', text => {
  expect(collected(new EhloReply(false), text).at(-1)).toMatchObject({ offersAuth: false })
})

test('AUTH in the form for old clients is an offer', () => {
  expect(collected(new EhloReply(false), '250-mx\r\n250 AUTH=LOGIN\r\n').at(-1)).toMatchObject({ offersAuth: true })
})
