import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const from = (name: string) => JSON.stringify(join(import.meta.dirname, '../../../src/libc', `${name}.ts`))

test('one process looks up an account and then hashes a password, as passwd and the monitor do', () => {
  const source = `
    import { accountNamed, accountWithUid, crypt } from ${from('accounts')}
    import { notifySocket } from ${from('sockets')}
    const root = accountNamed('root')
    let refused
    try { notifySocket('/nonexistent/notify', 'READY=1') } catch (error) { refused = error.code }
    const hash = await crypt('sesame', '$6$saltsalt$')
    console.log(JSON.stringify([root, accountWithUid(0), accountNamed('no-such-account'), refused, hash?.slice(0, 12)]))
  `
  const child = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', source], { encoding: 'utf8' })
  expect(child.stderr).toBe('')
  const root = { name: 'root', uid: 0, gid: 0, home: '/root' }
  expect(JSON.parse(child.stdout)).toEqual([root, root, null, 'ENOENT', '$6$saltsalt$'])
})
