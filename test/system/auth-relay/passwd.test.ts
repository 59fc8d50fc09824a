import { readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { afterAll, expect, test } from 'vitest'
import { run } from '../../harness/processes/program.ts'
import { commandOf } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const file = `${directory.path}/passwd`

const passwd = async (login: string, input: string, ...options: readonly string[]) => {
  const { ending, lines } = await run(
    commandOf('auth-relay', 'passwd', login, '--file', file, '--home', '/var/vmail/x', ...options),
    { input },
  )
  return { status: ending?.code, output: lines.join('\n') }
}
/** `uid:gid` of an account. */
const idsOf = (login: string): string | undefined =>
  new RegExp(`^${login}:[^:]+:(\\d+:\\d+):`, 'm').exec(readFileSync(file, 'utf8'))?.[1]

test('a password without a line end is accepted', async () => {
  expect(await passwd('ann', 'sesame', '--uid', '5000')).toMatchObject({ status: 0 })
  expect(idsOf('ann')).toBe('5000:5000')
})

test('a password that begins with a space is accepted, but with compat = "qmail" refused with the reason', async () => {
  expect(await passwd('spaced', ' sesame\n', '--uid', '5000')).toMatchObject({ status: 0 })
  const config = `${directory.path}/qmail.toml`
  writeFileSync(config, `[popup]\ncompat = "qmail"\npasswd_file = "${file}"\n`)
  const words = ['passwd', 'of-qmail', '--uid', '5000', '--home', '/var/vmail/x', '--config', config]
  const { ending, lines } = await run(commandOf('auth-relay', ...words), { input: ' sesame\n' })
  expect(ending?.code).toBe(100)
  expect(lines.join('\n')).toContain('a password must not begin with a space')
  expect(idsOf('of-qmail')).toBeUndefined()
  expect(await passwd('nothing', '', '--uid', '5000')).toMatchObject({ status: 100 })
})

test('--uid sets neither the group of an account with the same name nor a former group with another uid', async () => {
  const { username, uid, gid } = userInfo()
  const other = String(uid + 4321)
  await passwd(username, 'sesame\n', '--uid', other)
  expect(idsOf(username)).toBe(`${other}:${other}`)
  await passwd('bob', 'sesame\n', '--uid', '5001', '--gid', '6001')
  await passwd('bob', 'sesame again\n')
  expect(idsOf('bob')).toBe('5001:6001')
  await passwd('bob', 'sesame again\n', '--uid', '5002')
  expect(idsOf('bob')).toBe('5002:5002')
  expect(gid).not.toBe(Number(other))
})
