import { spawn } from 'node:child_process'
import { closeSync } from 'node:fs'
import { SystemCallError } from '../libc/native-function.ts'
import { isStreamSocket } from '../libc/sockets.ts'
import { ClientAcceptor } from './acceptor.ts'
import { DescriptorChannel } from './descriptor-channel.ts'
import type { Engine } from './engine.ts'
import { EpollConnection } from './epoll-connection.ts'
import { socketLoop } from './event-loop.ts'
import { OwnedDescriptor } from './owned-descriptor.ts'

/** The descriptor at which a child finds its end of the channel. */
const CHANNEL_DESCRIPTOR = 3

/** Sockets as descriptors in an epoll instance, system calls through libc. */
export const epollEngine: Engine = {
  name: 'epoll',

  accept: (listening, options, take) => new ClientAcceptor(listening, options, take),

  handover: {
    connect: DescriptorChannel.connect,
    from: DescriptorChannel.from,
    adopt(socket) {
      // Sending together (io_submit) would write to a file as well.
      if (!(socket instanceof OwnedDescriptor) || !isStreamSocket(socket.descriptor)) {
        socket.close()
        return undefined
      }
      try {
        return new EpollConnection(socket)
      } catch (error) {
        if (error instanceof SystemCallError) return error
        throw error
      }
    },
  },

  startChild({ file, args, environment }, listener) {
    const { channel, other } = DescriptorChannel.pair(listener)
    try {
      const child = spawn(file, [...args], { stdio: ['ignore', 'ignore', 'inherit', other], env: { ...environment } })
      return { child, channel }
    } finally {
      closeSync(other)
    }
  },

  channelToParent: listener => new DescriptorChannel(new OwnedDescriptor(CHANNEL_DESCRIPTOR), listener),

  logLimits(log) {
    socketLoop().onBatchEnd(reason => log.info('batch_unavailable', { reason }))
    socketLoop().onStrayEvent(tag => log.error('event_unmatched', { tag, reason: 'no registration has this tag' }))
  },
}
